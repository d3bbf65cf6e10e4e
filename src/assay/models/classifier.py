"""An image classifier that normalises its own input and is stored without a pickle."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import UserError
from assay.files import refuse_pickles
from assay.models.backbones import BACKBONES, create_backbone, feature_size


class ImageClassifier(  # type: ignore[call-arg]  # the mixin's keywords
    nn.Module, PyTorchModelHubMixin, library_name="assay", tags=["image-classification"]
):
    """A backbone, a linear head, and the normalisation that the training images asked for.

    Args:
        backbone: name, hub id or local folder, as `create_backbone` takes it.
        num_classes: the number of logits.
        channels: 1 or 3; one-channel images are repeated for a pre-trained backbone that wants three.
        image_size: side in pixels of the images that the model is made for.
        mean: per-channel mean of the training images in [0, 1].
        std: per-channel standard deviation of the training images in [0, 1].
        class_names: one name for each class, in the order of the logits; default: the numbers.
        backbone_config: transformers configuration of a hub backbone; written on saving, so that loading
            needs no hub.

    Example:
        >>> model = ImageClassifier("resnet-small", num_classes=3, channels=1, image_size=28).eval()
        >>> model(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([2, 3])
    """

    mean: Tensor
    std: Tensor
    save_pretrained: Callable[..., str | None]  # of the mixin, which type checkers do not see
    _hub_mixin_config: dict[str, Any]

    def __init__(
        self,
        backbone: str = "resnet-small",
        num_classes: int = 10,
        channels: int = 1,
        image_size: int = 28,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        class_names: Sequence[str] | None = None,
        backbone_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = list(class_names or map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise UserError(f"{len(self.class_names)} class names for {num_classes} classes: give one for each.")
        self.backbone = create_backbone(backbone, channels=channels, image_size=image_size, config=backbone_config)
        self.classifier = nn.Linear(feature_size(self.backbone.config), num_classes)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)
        # Convolutions run a quarter faster on a CPU, and much faster in half precision on a GPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if backbone not in BACKBONES:
            self._hub_mixin_config["backbone_config"] = self.backbone.config.to_dict()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, float32 [N, K], of uint8 or float [0, 1] images [N, C, H, W]."""
        return self.classifier(self.features(images)).float()

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled features [N, D] that the linear head sees."""
        output = self.backbone(self.normalize(images))
        pooled = output.get("pooler_output")
        if pooled is None:
            return output.last_hidden_state.mean(dim=1)
        return pooled.flatten(1)

    def hidden_states(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the stem and every stage of the backbone put out, shallow to deep."""
        return self.backbone(self.normalize(images), output_hidden_states=True).hidden_states

    def normalize(self, images: Tensor) -> Tensor:
        """Return images as the backbone takes them: standardised, with its channels and its size."""
        if not images.is_floating_point():
            images = images.float() / 255
        images = (images - self.mean) / self.std
        config = self.backbone.config
        if images.shape[1] == 1 and config.num_channels != 1:
            images = images.expand(-1, config.num_channels, -1, -1)
        # A transformer's position embeddings fix its input size; a convolutional network has no such key.
        size = getattr(config, "image_size", None)
        if size is not None and images.shape[-1] != size:
            images = functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        return images

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load a model artifact: a folder with ``config.json`` and ``model.safetensors``, or a hub id.

        Raises:
            UserError: there is no such folder or hub model, it is not an image classifier, or a pickle is in it.
        """
        if Path(pretrained_model_name_or_path).is_dir():
            refuse_pickles(pretrained_model_name_or_path)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise UserError(
                f"{pretrained_model_name_or_path} is not an image classifier ({reason}): give a folder with "
                "config.json and model.safetensors as `save_pretrained` writes it."
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> Self:
        """Read safetensors and nothing else: the mixin's own version falls back to a pickle."""
        weights = Path(model_id) / SAFETENSORS_SINGLE_FILE
        if not Path(model_id).is_dir():
            weights = hf_hub_download(
                model_id,
                SAFETENSORS_SINGLE_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        model = cls(**model_kwargs)
        load_model(model, weights)
        return model.eval()
