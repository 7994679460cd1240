"""tools/cost.py, and the help of the demo's training: what a command line may say."""

import argparse
import subprocess
import sys

import pytest

from benchmarks.break_even.choices import MONTH_S, snapstart_usd_month
from benchmarks.break_even.function import Function
from benchmarks.break_even.prices import load_prices
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


@pytest.mark.parametrize("architecture", sorted(cost.PRICE))
def test_snapstart_is_billed_alike_here_and_at_the_break_even_point(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its initialisation, its cache, and each restore by the GB and by the time that is billed of it."""
    monkeypatch.setattr(cost, "MONTH", MONTH_S)
    options = argparse.Namespace(
        requests=1000, seconds=0.0, memory=2048, architecture=architecture, cold_share=0.5,
        init_seconds=4.0, restore_seconds=1.5, versions=1, provisioned=1,
    )  # fmt: skip
    run = cost.PRICE[architecture]["run"]
    expected = 2 * (4 * run + MONTH_S * 1.5046e-6 + 500 * (1.5 * run + 1.397998e-4))
    assert cost.monthly(options)["SnapStart"] - 1000 * 2e-7 == pytest.approx(expected, rel=1e-9)
    function = Function(2048, cold_s=4.0, load_s=0.0, restore_s=1.5, warm_s=1.0, warm_cv=0.0)
    prices = load_prices("us-east-1", architecture)
    assert snapstart_usd_month(function, prices, 500) == pytest.approx(expected, rel=1e-9)
