import os

import numpy as np
import pytest

from assay.data import parallel


@pytest.mark.parametrize("workers", [1, 3])
def test_ranges_cover_every_item_once_and_in_order(workers, monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: workers)
    parts = parallel.map_ranges(lambda start, stop: list(range(start, stop)), 10, what="Counting", chunk=3)
    assert [item for part in parts for item in part] == list(range(10))


def test_several_cores_means_several_processes(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    pids = set(parallel.map_ranges(lambda start, stop: os.getpid(), 64, what="Counting", chunk=1))
    assert os.getpid() not in pids


def test_an_error_in_a_worker_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 2)

    def fail(start, stop):
        raise ValueError(f"at {start}")

    with pytest.raises(ValueError, match="at 0"):
        list(parallel.map_ranges(fail, 8, what="Counting", chunk=2))


def test_long_work_says_how_far_it_is(monkeypatch, capsys):
    clock = iter(np.arange(0, 100, 3.0))
    monkeypatch.setattr(parallel.time, "monotonic", lambda: next(clock))
    list(parallel.progress(range(4), [10, 20, 30, 40], what="Decoding"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Decoding: 10 of 40 images, 9 s left"
    assert len(lines) == 2  # five seconds apart


def test_short_work_says_nothing(capsys):
    list(parallel.progress(range(4), [1, 2, 3, 4], what="Decoding"))
    assert capsys.readouterr().err == ""
