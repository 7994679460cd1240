"""tools/cost.py, and the help of the demo's training: what a command line may say."""

import subprocess
import sys

import pytest

from settings import ROOT
from tools import cost


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["cost", *arguments])
    cost.main()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--requests", "-1"),
        ("--requests", "1.5"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--memory", "0"),
        ("--cold-share", "1.1"),
        ("--cold-share", "-0.1"),
        ("--versions", "-1"),
        ("--provisioned", "0"),
    ],
)
def test_what_cannot_be_is_refused(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        printed(monkeypatch, capsys, f"{option}={value}")
    assert f"argument {option}: {value} is not a " in capsys.readouterr().err


def test_environments_too_few_for_the_requests_have_no_price(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = ("--requests", str(cost.MONTH), "--seconds", "2")
    said = "provisioned concurrency  no price: 1 kept warm cannot do it, at least 2 are needed"
    assert printed(monkeypatch, capsys, *requests).splitlines()[-1] == said
    assert printed(monkeypatch, capsys, *requests, "--provisioned", "2").splitlines()[-1].endswith("$")


def test_help_of_the_training_trains_nothing() -> None:
    command = [sys.executable, "-m", "tools.train_demo_model", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, "OUT_DIR" in done.stdout, "train:" in done.stderr) == (0, True, False)
