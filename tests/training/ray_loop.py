"""A training loop for Ray workers; as a program, ``ray_loop.py STORAGE PAUSE`` trains with it on two of them."""

import sys
from pathlib import Path


def make_train():
    """Return the loop as a closure, so that it travels to the workers by value."""

    def train(session, config):
        import os
        import signal
        import time
        from pathlib import Path

        import torch
        from torch import nn

        def wait_for(path):
            deadline = time.monotonic() + 60
            while not Path(path).exists() and time.monotonic() < deadline:
                time.sleep(0.05)

        images = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        model, optimizer = session.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01))
        for epoch in session.epochs(config["epochs"]):
            total = torch.zeros(2)
            for step, index in enumerate(session.progress(session.batches(64, 16))):
                loss = (model(images[index]) - images[index].sum(1, keepdim=True)).square().mean()
                session.backward(loss * config.get("factor", 1.0))
                optimizer.step()
                optimizer.zero_grad()
                total += torch.stack([loss.detach() * len(index), torch.tensor(len(index))])
                if epoch == step == 1 and "wait_for" in config:
                    Path(config["reached"]).touch()
                    wait_for(config["wait_for"])
                if epoch == step == 1 and "killed" in config and not Path(config["killed"]).exists():
                    Path(config["killed"]).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            total = session.reduce(total)
            counts = {"workers": session.world_size, "threads": torch.get_num_threads()}
            session.log({"loss": (total[0] / total[1]).item(), **counts}, epoch + 1)
            session.checkpoint(epoch)

    return train


if __name__ == "__main__":
    from assay.training import launch

    folder = Path(sys.argv[1])
    config = {"epochs": 3, "wait_for": folder / "go", "reached": folder / "reached"}
    launch(make_train(), config, storage=folder / "runs", name="run", seed=2, workers=2)
