"""What a trained classifier says, and the file that keeps it."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from assay.data import Split
from assay.files import atomic_write
from assay.training.progress import track


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """Return the model's output for ``images``, in evaluation mode, batch by batch.

    Args:
        model: takes a batch of images; it runs on the device that it is on, and keeps its mode.
        images: uint8 or float [0, 1], [N, C, H, W], on any device.
        batch_size: images at a time.

    Returns:
        float32 [N, K] on the CPU.

    Example:
        >>> predict_logits(nn.Flatten(), torch.ones(3, 1, 2, 2), batch_size=2).shape
        torch.Size([3, 4])
    """
    parameter = next(model.parameters(), None)
    device = images.device if parameter is None else parameter.device
    was_training = model.training
    model.eval()
    try:
        batches = track(images.split(batch_size), title="predicting")
        return torch.cat([model(batch.to(device)).float().cpu() for batch in batches])
    finally:
        model.train(was_training)


def write_logits(
    path: Path, logits: Mapping[str, Tensor], splits: Mapping[str, Split], class_names: Sequence[str]
) -> None:
    """Write ``logits.npz``: logits, labels and sample ids of every split, and the class names; no pickle."""
    arrays: dict[str, np.ndarray] = {"class_names": np.array(class_names, dtype=np.str_)}
    for name, values in logits.items():
        arrays[f"{name}_logits"] = values.numpy().astype(np.float32)
        arrays[f"{name}_labels"] = splits[name].labels.numpy().astype(np.int64)
        arrays[f"{name}_ids"] = splits[name].sample_ids.astype(np.str_)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    atomic_write(path, buffer.getvalue())
