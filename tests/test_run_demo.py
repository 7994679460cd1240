"""`make run`, as a person sees it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from settings import ROOT


def run_demo(directory: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.run_demo"],
        cwd=ROOT,
        env={**os.environ, "MODEL_DIR": str(directory), "THREADS": "1", "PYTHONIOENCODING": "utf-8", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_it_shows_the_cold_start_every_answer_and_the_factors(llama_directory: Path) -> None:
    done = run_demo(llama_directory, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    for event in (ROOT / "events").glob("*.json"):
        assert f"events/{event.name}, " in done.stdout
    for phase in ("Python and runtime client", "imports of the engine", "tokenizer", "weights", "until ready"):
        assert re.search(rf"^  {phase}.* +[0-9.,]+ ms", done.stdout, re.MULTILINE)
    text = " ".join(done.stdout.split())
    factors = [float(factor) for factor in re.findall(r"([0-9.]+) times as long", text)]
    assert len(factors) == 3
    assert min(factors[:2]) > 1  # the first invocation's, and that of a load's first token
    # Plain text no wider than asked for, since it does not go to a terminal.
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80


def test_a_model_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "no")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"The function cannot start. {tmp_path / 'no'} is not a directory; "
        f"set MODEL_DIR to a checkpoint or a compiled artifact."
    )
    assert "Traceback" not in done.stdout


def test_a_setting_that_cannot_be_used_is_named(llama_directory: Path) -> None:
    done = run_demo(llama_directory, DTYPE="int3")
    assert done.returncode == 1
    assert "DTYPE is 'int3'; set it to one of" in done.stderr
