"""How a run ends early: what it started ends with it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from tests.running_server import wait_until

ROOT = Path(__file__).resolve().parent.parent
LOADED = """
import time
from benchmarks.deadlines.command import _load
with _load(True):
    print(1, flush=True)
    time.sleep(60)
"""


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def runs(pid: str) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_that_is_told_to_end_ends_its_processes_and_claims_no_results(tmp_path: Path) -> None:
    options = ["--model", "demo=models/demo", "--prompt", "60", "--calls", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks", "deadlines", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: bool(children(run.pid)), "it has started something")
        started = children(run.pid)
        run.terminate()
        assert run.stderr is not None
        assert "interrupted; nothing was measured yet" in run.stderr.read()
        assert run.wait() == 130
    wait_until(lambda: not any(map(runs, started)), "what it started has ended")


def test_a_load_ends_with_the_run_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", LOADED], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        started = children(run.pid)
        assert started
        wait_until(
            lambda: not any("prctl" in Path(f"/proc/{pid}/cmdline").read_text() for pid in started), "each ends with it"
        )
        run.kill()
    wait_until(lambda: not any(map(runs, started)), "the load has ended")
