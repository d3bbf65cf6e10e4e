"""Public data sets that Assay knows by name: what their labels mean and where they are published."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublicDataset:
    """A published data set of IDX files: the names of its classes, and its sources.

    ``debian_package`` holds the gzipped IDX files; ``hub_id`` the same images as Parquet.
    """

    title: str
    class_names: tuple[str, ...]
    licence: str
    debian_package: str
    hub_id: str


PUBLIC_DATASETS = {
    "fashion-mnist": PublicDataset(
        title="Fashion-MNIST, Zalando Research (Xiao, Rasul and Vollgraf, arXiv:1708.07747)",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        licence="MIT",
        debian_package="dataset-fashion-mnist",
        hub_id="zalando-datasets/fashion_mnist",
    )
}
