"""What the tests run in processes of their own; nothing here imports torch, which takes seconds to start."""

from multiprocessing.synchronize import Barrier

from assay.registry import promote


def promote_in_rounds(version: int, rounds: int, barrier: Barrier) -> None:
    """Promote one version in every round, at the same moment as the other processes."""
    for number in range(rounds):
        barrier.wait()
        promote("digits", version, reason=f"round {number}")
