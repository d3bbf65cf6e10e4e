import io

import pytest
from rich.console import Console

from assay.training import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_every_few_seconds_with_the_time_left(clock, capsys):
    for _ in progress.track(range(10), title="epoch 2/2", done=10, total=20, status=lambda: "loss 0.5"):
        clock.now += 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 2/2: 20% loss 0.5 ETA 0:24"
    assert len(lines) == 5


def test_the_time_left_counts_the_epochs_to_come(clock, capsys):
    for _ in progress.track(range(10), title="epoch 1/2", total=20):
        clock.now += 3
    assert capsys.readouterr().err.splitlines()[0].endswith("ETA 0:54")


def test_a_short_part_prints_nothing(clock, capsys):
    assert list(progress.track([1, 2], title="short")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_status(clock, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100))
    for _ in progress.track(range(4), title="epoch 1/1", status=lambda: "loss 0.125"):
        clock.now += 1
    assert "epoch 1/1" in screen.getvalue() and "loss 0.125" in screen.getvalue()
