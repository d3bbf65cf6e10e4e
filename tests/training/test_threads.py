import os

import pytest

from assay.training import threads


@pytest.mark.parametrize(
    ("cpu_max", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("6400000 100000", 8)]
)
def test_the_quota_of_a_container_counts(tmp_path, monkeypatch, cpu_max, cores):
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert threads.available_cores() == cores
