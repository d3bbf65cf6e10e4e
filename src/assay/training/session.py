"""The Session: device, data-parallel wrapping, mixed precision, checkpoints and progress of one run."""

import contextlib
import itertools
import math
import random
from collections.abc import Iterator
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, distributed, nn

from assay.errors import UserError
from assay.training.checkpoints import CheckpointStore, Stateful, TrainingState
from assay.training.progress import SizedIterable, track

Item = TypeVar("Item")
Precision = Literal["auto", "float32", "bfloat16"]


@runtime_checkable
class Tracker(Protocol):
    """Where metrics go; picklable, so that it can travel to a Ray worker."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record ``metrics`` at ``step``."""


class Stream(Protocol):
    """One process's share of a data set that is read while it is trained on."""

    def batches(self, size: int, seed: int) -> Iterator[Any]:
        """Yield the share of an epoch in tables of ``size`` rows, in an order that depends on ``seed``."""


class Session:
    """What a training loop needs beyond PyTorch, and nothing more.

    Device placement and data-parallel wrapping are Hugging Face Accelerate's; the loop is the caller's. The
    same loop runs in this process and inside a Ray Train worker.

    Args:
        store: where checkpoints go; without one, `checkpoint` keeps nothing and `resume` starts from zero.
        seed: seeds every random generator, here and again at the start of each epoch.
        precision: of `autocast`; ``auto`` is bfloat16 on CUDA and float32 elsewhere.
        tracker: also receives what is logged, from the first process only.
        stream: what `stream` reads.

    Example:
        >>> session = Session(seed=1)
        >>> model = nn.Linear(1, 1)
        >>> model, optimizer = session.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> for epoch in session.epochs(2):
        ...     for index in session.progress(session.batches(8, batch_size=4)):
        ...         session.backward(model(index[:, None].float()).square().mean())
        ...         optimizer.step(); optimizer.zero_grad()
        ...     session.checkpoint(epoch)
    """

    def __init__(
        self,
        store: CheckpointStore | None = None,
        *,
        seed: int = 0,
        precision: Precision = "auto",
        tracker: Tracker | None = None,
        stream: Stream | None = None,
    ) -> None:
        from accelerate import Accelerator

        self.seed = seed
        self.tracker = tracker
        self._store = store
        self._stream = stream
        self._state = TrainingState()
        # Accelerate finds a process group of CPUs, as Ray makes one, only when told that it is on the CPU.
        self._accelerator = Accelerator(cpu=distributed.is_initialized() and distributed.get_backend() == "gloo")
        self._autocast = precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda")
        self._epoch = 0
        self._epochs = 1
        self._share = 1.0
        self._loss = self._loss_sum = torch.zeros((), device=self.device)
        self._seed_generators(0)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._accelerator.device

    @property
    def rank(self) -> int:
        """The number of this process among `world_size`."""
        return self._accelerator.process_index

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self._accelerator.is_main_process

    @property
    def history(self) -> list[dict[str, float]]:
        """Everything logged so far, continued runs included: one dictionary with its ``step`` each."""
        return self._state.history

    @property
    def models(self) -> list[nn.Module]:
        """The models that `prepare` was given, in order: `TrainingResult.load` numbers them so."""
        return self._state.models

    def prepare(self, *objects: Any) -> Any:
        """Place models and optimisers on the device, wrap them, and keep them in checkpoints.

        Several models and optimisers may come in one call or in several, in the same order in every run.
        Schedulers and any other object with a state dictionary are kept in checkpoints as they are: they step
        once per optimiser step, however many processes there are.

        Returns:
            The prepared object, or a tuple of them in the order given.
        """
        prepared = tuple(self._prepare(item) for item in objects)
        return prepared[0] if len(prepared) == 1 else prepared

    def _prepare(self, item: Any) -> Any:
        if isinstance(item, nn.Module):
            self._state.models.append(item)
            if any(parameter.requires_grad for parameter in item.parameters()):
                return self._own_statistics(self._accelerator.prepare(item))
            return self._agree(item.to(self.device))  # torch refuses to wrap what has no gradient to share
        if isinstance(item, Stateful):
            self._state.others.append(item)
        if isinstance(item, torch.optim.Optimizer):
            return self._accelerator.prepare(item)
        return item

    @staticmethod
    def _own_statistics(model: nn.Module) -> nn.Module:
        """Let every process keep its own running statistics of batch normalisation; the first one's are saved.

        Sending them round before every step would make all processes wait for the slowest a second time.
        """
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model.forward_sync_buffers = False
        return model

    def _agree(self, model: nn.Module) -> nn.Module:
        """Give ``model`` the first process's weights in every process."""
        if self.world_size > 1:
            for value in model.state_dict().values():
                distributed.broadcast(value, 0)
        return model

    def unwrap(self, model: nn.Module) -> Any:
        """Return the module that `prepare` was given."""
        return self._accelerator.unwrap_model(model)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the forward pass in bfloat16 where the session's precision says so."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._autocast)

    def backward(self, loss: Tensor) -> None:
        """Back-propagate ``loss`` and remember it for the progress bar and the check for NaN."""
        # Data-parallel gradients are averaged over the processes, whose shares of a batch may differ by one sample.
        self._accelerator.backward(loss if self._share == 1 else loss * self._share)
        # Summed on the device: one NaN or infinity anywhere stays visible until somebody looks.
        self._loss = loss.detach()
        self._loss_sum = self._loss_sum + self._loss

    def epochs(self, total: int) -> Iterator[int]:
        """Yield the epochs left to do, after resuming.

        Each begins with freshly seeded random generators and without gradients, so that an epoch is the same
        whether the one before it ran in this process or in one that was killed.
        """
        self._epochs = total
        for epoch in range(self.resume(), total):
            self._epoch = epoch
            self._seed_generators(epoch)
            for model in self._state.models:
                model.zero_grad()
            yield epoch

    def batches(self, size: int, batch_size: int) -> tuple[Tensor, ...]:
        """Return this process's part of an epoch's shuffled batches of indices.

        Args:
            size: the number of samples; what is left over after the last whole batch waits for another epoch.
            batch_size: over all processes together, so that their number does not change the steps.

        Returns:
            One int64 tensor of ``batch_size / world_size`` indices for each step.
        """
        generator = torch.Generator().manual_seed(self._derive_seed(self._epoch))
        order = torch.randperm(size, generator=generator)
        batch_size = min(batch_size, size)
        steps = size // batch_size
        mine = order[: steps * batch_size].reshape(steps, batch_size)[:, self.rank :: self.world_size]
        self._share = mine.shape[1] * self.world_size / batch_size
        return mine.unbind()

    def stream(self, size: int, batch_size: int) -> SizedIterable[Any]:
        """Return this process's part of an epoch's batches as Arrow tables, read while they are trained on.

        Args:
            size: the number of samples in the stream, over all processes together.
            batch_size: over all processes together.

        Raises:
            UserError: the training was launched without a stream.
        """
        if self._stream is None:
            raise UserError("There is no stream in this process: launch the training with one, on Ray workers.")
        batch_size = min(batch_size, size)
        share = batch_size // self.world_size
        tables = self._stream.batches(share, self._derive_seed(self._epoch))
        return _Sized(size // batch_size, tables)

    def progress(self, batches: SizedIterable[Item]) -> Iterator[Item]:
        """Yield ``batches``, showing the epoch, the loss and the time left."""
        if not self.is_main:
            return iter(batches)
        steps = len(batches)
        return track(
            batches,
            title=f"epoch {self._epoch + 1}/{self._epochs}",
            done=self._epoch * steps,
            total=self._epochs * steps,
            status=self._status,
        )

    def _status(self) -> str:
        if self.world_size == 1:  # several processes look together, in `checkpoint`, or one would wait for ever
            self._refuse_divergence()
        return f"loss {self._loss.item():.4f}"

    def reduce(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over all processes."""
        return self._accelerator.reduce(values, reduction="sum") if self.world_size > 1 else values

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record ``metrics`` in the history and the tracker, and print them on one line.

        Raises:
            UserError: the loss or a metric is not finite.
        """
        self._refuse_divergence()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(f"{name} is {value} at step {step}: {_DIVERGED_ADVICE}")
        self.history.append({"step": step, **metrics})
        if self.is_main:
            line = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            Console(stderr=True).print(f"step {step}: {line}", highlight=False, markup=False, soft_wrap=True)
            if self.tracker is not None:
                self.tracker.log(metrics, step)

    def checkpoint(self, epoch: int) -> None:
        """Keep the state after ``epoch``, if it is worth keeping.

        Raises:
            UserError: the loss or a weight is not finite, so that no checkpoint of it is kept.
        """
        self._refuse_divergence()
        parameters = [p.detach() for model in self._state.models for p in model.parameters()]
        if parameters and not torch.stack([p.isfinite().all() for p in parameters]).all():
            raise UserError(f"A weight is not finite after epoch {epoch + 1}: {_DIVERGED_ADVICE}")
        self._state.epochs_done = epoch + 1
        if self._store is not None and self.is_main:
            self._store.save(self._state.write, epoch)

    def resume(self) -> int:
        """Load the newest checkpoint, if there is one, and return the number of epochs done."""
        if self._store is not None and self._store.restore(self._state.read) and self.is_main:
            done = self._state.epochs_done
            Console(stderr=True).print(f"continuing after epoch {done}", highlight=False)
        return self._state.epochs_done

    def _refuse_divergence(self) -> None:
        total = self.reduce(self._loss_sum).item()
        if not math.isfinite(total):
            raise UserError(f"The training loss became {total} in epoch {self._epoch + 1}: {_DIVERGED_ADVICE}")

    def _seed_generators(self, epoch: int) -> None:
        seed = self._derive_seed(epoch, 1 + self.rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries below draw from the global generator
        torch.manual_seed(seed)

    def _derive_seed(self, *parts: int) -> int:
        return int(np.random.SeedSequence([self.seed, *parts]).generate_state(1, np.uint64)[0] >> 1)


_DIVERGED_ADVICE = "lower the learning rate, or look for broken images or labels."


class _Sized:
    """The first ``count`` of ``items``, which are more."""

    def __init__(self, count: int, items: Iterator[Any]) -> None:
        self.count = count
        self.items = items

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.items, self.count)
