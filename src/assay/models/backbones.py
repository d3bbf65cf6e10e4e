"""One factory for the networks that see images, all of them from transformers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from assay.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SMALL_INPUT = 96
"""Images up to this many pixels a side get the small stem: seven strided pixels would be most of them."""

_RESNETS: dict[str, dict[str, Any]] = {
    "resnet-small": {
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64],
        "depths": [1, 1, 1],
        "layer_type": "basic",
        "downsample_in_first_stage": True,
    },
    # The first stage sees every pixel: what is looked for in forensics is lost in the first halving.
    "resnet-detail": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 32, 64],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    },
    "resnet18": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    "resnet50": {"hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3], "layer_type": "bottleneck"},
}
_VISION_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "vit-small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
}
BACKBONES = (*_RESNETS, *_VISION_TRANSFORMERS)
"""The names that `create_backbone` builds from this project's code, with random weights."""


def create_backbone(
    name: str, *, channels: int = 3, image_size: int = 224, config: dict[str, Any] | None = None
) -> "PreTrainedModel":
    """Build a backbone whose output has ``last_hidden_state`` and, mostly, ``pooler_output``.

    Args:
        name: one of `BACKBONES`, a model id of the Hugging Face hub, or a local folder in its layout.
        channels: image channels; a hub or local model keeps its own.
        image_size: side in pixels; up to `SMALL_INPUT`, the stem of a named backbone keeps the resolution.
        config: a transformers configuration, to rebuild a hub model without its weights and without the hub.

    Raises:
        UserError: the hub id or folder cannot be read.

    Example:
        >>> backbone = create_backbone("resnet-small", channels=1, image_size=28)
        >>> feature_size(backbone.config)
        64
    """
    if config is not None:
        return _from_config(config)
    if name in _RESNETS:
        return _resnet(channels=channels, image_size=image_size, **_RESNETS[name])
    if name in _VISION_TRANSFORMERS:
        return _vision_transformer(channels=channels, image_size=image_size, **_VISION_TRANSFORMERS[name])
    return _pretrained(name)


def feature_size(config: "PretrainedConfig") -> int:
    """Return the length of a backbone's pooled feature vector."""
    sizes = getattr(config, "hidden_sizes", None)
    return sizes[-1] if sizes else config.hidden_size


def _resnet(*, channels: int, image_size: int, **sizes: Any) -> "PreTrainedModel":
    from transformers import ResNetConfig
    from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetModel

    config = ResNetConfig(num_channels=channels, **sizes)
    model = ResNetModel(config)
    if image_size <= SMALL_INPUT:
        model.embedder = ResNetConvLayer(channels, config.embedding_size, kernel_size=3, stride=1)
        nn.init.kaiming_normal_(model.embedder.convolution.weight, mode="fan_out", nonlinearity="relu")
    return model


def _vision_transformer(*, channels: int, image_size: int, **sizes: Any) -> "PreTrainedModel":
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTModel

    patch = min(16, max(2, round(image_size / 8)))  # 16 at 224 pixels as published; 4 at 28 and 32
    config = ViTConfig(num_channels=channels, image_size=image_size, patch_size=patch, **sizes)
    return ViTModel(config)


def _pretrained(name: str) -> "PreTrainedModel":
    from transformers import AutoModel

    if Path(name).is_dir() and not list(Path(name).glob("*.safetensors")):
        raise UserError(f"The backbone folder {name} holds no *.safetensors weights: save the model as safetensors.")
    try:
        return AutoModel.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The backbone {name!r} is neither one of {', '.join(BACKBONES)}, nor a local model folder, "
            "nor a model that the Hugging Face hub gave: check the spelling and the network."
        ) from error


def _from_config(config: dict[str, Any]) -> "PreTrainedModel":
    from transformers import AutoConfig, AutoModel

    settings = dict(config)
    return AutoModel.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
