"""A training run in a process of its own; given an epoch, it kills itself in the middle of it."""

import os
import signal
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from assay.training import launch

EPOCHS, SAMPLES = 4, 48


def train(session, config):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=EPOCHS * SAMPLES // 8)
    images = torch.randn(SAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model, optimizer, schedule = session.prepare(model, optimizer, schedule)
    for epoch in session.epochs(EPOCHS):
        for step, index in enumerate(session.progress(session.batches(SAMPLES, 8))):
            noisy = images[index] + 0.1 * torch.randn(len(index), 1, 8, 8)
            session.backward(functional.cross_entropy(model(noisy), index % 3))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if epoch == config["kill_in_epoch"] and step == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        session.checkpoint(epoch)


def run(folder, kill_in_epoch=-1):
    result = launch(train, {"kill_in_epoch": kill_in_epoch}, storage=folder, name="run")
    return load_file(result.checkpoint / "model.safetensors")


if __name__ == "__main__":
    run(Path(sys.argv[1]), kill_in_epoch=int(sys.argv[2]))
