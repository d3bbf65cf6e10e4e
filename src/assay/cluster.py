"""What the steps of a pipeline get on a Kubeflow cluster: ``pipelines/cluster.yaml``, one object for all pipelines."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from assay.config import Config
from assay.errors import UserError
from assay.project import Project

RAY_JOB_ANNOTATION = "assay/ray-job"
"""Of a training step's pod: what ``ASSAY_RAY_JOB`` holds in it."""

Cpus = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?m?$")]
Bytes = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(M|G|T|Mi|Gi|Ti)$")]
Size = Literal["small", "medium", "large", "training"]


class Toleration(Config):
    """A taint of nodes that a step bears, in the words of Kubernetes."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class StepResources(Config):
    """What a step of one size gets.

    Attributes:
        cpus: requested, and at most.
        memory: requested, and at most.
        gpus: how many of ``gpu_type``; 0 asks for none.
        gpu_type: the resource that the cluster counts GPUs by.
        shared_memory: size of ``/dev/shm``, through which data loaders pass batches; it counts as memory.
        timeout_minutes: after which Kubernetes ends the step; None waits for ever.
        node_selector: labels of the nodes that it may run on.
        tolerations: taints of nodes that it may run on.
    """

    cpus: Cpus
    memory: Bytes
    gpus: int = Field(default=0, ge=0)
    gpu_type: str = "nvidia.com/gpu"
    shared_memory: Bytes | None = None
    timeout_minutes: int | None = Field(default=None, ge=1)
    node_selector: dict[str, str] = Field(default={})
    tolerations: list[Toleration] = Field(default=[])


class Sizes(Config):
    """The sizes of steps."""

    small: StepResources = StepResources(cpus="1", memory="2G")
    medium: StepResources = StepResources(cpus="2", memory="4G")
    large: StepResources = StepResources(cpus="2", memory="8G")
    training: StepResources = StepResources(cpus="4", memory="16G")


class ClusterSettings(Config):
    """How steps run on a cluster. Nothing here changes what they compute, or how they run on this machine.

    Secrets are named, never written here.

    Attributes:
        namespace: where the steps run.
        service_account: of the steps; ``assay submit`` gives it to every run.
        image_pull_policy: when a node fetches the image again; None leaves it to Kubernetes.
        image_pull_secrets: names of Secrets with the registry's credentials.
        run_as_user: the user of the steps, never root; None leaves it to the image.
        config_maps: by name of a ConfigMap, the keys that become environment variables of the same name.
        secret_environment: by name of a Secret, which of its keys becomes which environment variable.
        secret_files: by name of a Secret, the folder where its keys appear as files.
        sizes: of steps.
        ray: the settings of ``assay.training.rayjob.RayJobSettings``, for trainings with Ray workers; namespace, image
            and node settings are those of the training steps unless given. None: Ray runs inside the step.

    Example:
        >>> ClusterSettings.parse({"sizes": {"training": {"cpus": "8", "memory": "32Gi", "gpus": 1}}}, "cluster.yaml")
        ... # doctest: +ELLIPSIS
        ClusterSettings(namespace='assay', ...)
    """

    namespace: str = "assay"
    service_account: str | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: list[str] = Field(default=[])
    run_as_user: int | None = Field(default=None, ge=1)
    config_maps: dict[str, list[str]] = Field(default={})
    secret_environment: dict[str, dict[str, str]] = Field(default={})
    secret_files: dict[str, str] = Field(default={})
    sizes: Sizes = Sizes()
    ray: dict[str, Any] | None = None

    def ray_job(self, image: str) -> dict[str, Any] | None:
        """Return ``RayJobSettings`` as plain data, for ``ASSAY_RAY_JOB``; None without.

        They are checked where they are used and by `assay.running.pipelines.to_yaml`; to check them loads torch.

        Args:
            image: of the steps.
        """
        if self.ray is None:
            return None
        training = self.sizes.training
        return {
            "namespace": self.namespace,
            "image": image,
            "node_selector": training.node_selector,
            "tolerations": [toleration.model_dump(exclude_none=True) for toleration in training.tolerations],
            **self.ray,
        }


def load_cluster_settings(project: Project | None = None) -> ClusterSettings:
    """Read ``pipelines/cluster.yaml``; without that file, the defaults.

    Raises:
        UserError: the file is not YAML, or holds an unknown or wrong setting.
    """
    path = (project or Project.find()).root / "pipelines" / "cluster.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return ClusterSettings()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {str(error).splitlines()[0]}; correct it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold settings such as `namespace: assay`: write them one a line.")
    return ClusterSettings.parse(values, where="cluster.yaml")
