import os
import signal
import subprocess
import sys

from assay.running.reaper import Reaper


def test_when_its_owner_dies_it_kills_the_groups_that_are_left_and_no_other():
    removed, kept = (subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2))
    owner = f"""
from assay.running.reaper import Reaper
import os, signal
reaper = Reaper()
reaper.add({removed.pid})
reaper.add({kept.pid})
reaper.remove({removed.pid})
os.killpg(0, signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", owner], start_new_session=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert kept.wait(timeout=20) == -signal.SIGKILL
    assert removed.poll() is None
    removed.kill()
    removed.wait()


def test_a_reaper_that_was_killed_does_not_stop_the_run():
    reaper = Reaper()
    os.kill(reaper._process.pid, signal.SIGKILL)
    reaper._process.wait()
    reaper.add(1)
    reaper.close()
