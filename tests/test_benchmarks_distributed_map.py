"""`python -m benchmarks distributed-map`: the bill's arithmetic, and the command from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.break_even.function import Function
from benchmarks.break_even.measured import measured_cold, measured_warm
from benchmarks.break_even.prices import load_prices
from benchmarks.distributed_map.simulation import simulate
from benchmarks.results import load_result

pytest.importorskip("matplotlib")
RESULTS = Path("benchmarks/results")
CONSTANT = Function(1024, cold_s=0.5, load_s=0.0, restore_s=0.0, warm_s=0.1, warm_cv=0.0)
PRICES = load_prices("us-east-1", "x86_64")


def test_each_environment_starts_once_and_takes_batch_after_batch() -> None:
    outcome = simulate(CONSTANT, PRICES, lines=95, items=10, most=2, rng=np.random.default_rng(0))
    assert (outcome.invocations, outcome.environments) == (10, 2)
    assert outcome.seconds == pytest.approx(0.5 + 5 * 1.0)
    assert outcome.longest_s == pytest.approx(1.5)
    assert outcome.lambda_usd == pytest.approx((95 * 0.1 + 2 * 0.5) * 1.66667e-5 + 10 * 2e-7)
    assert outcome.states_usd == pytest.approx(2 * 10 * 2.5e-5)


def test_no_more_environments_start_than_there_are_batches_and_no_faster_than_lambda_adds_them() -> None:
    few = simulate(CONSTANT, PRICES, lines=30, items=10, most=100, rng=np.random.default_rng(0))
    assert few.environments == 3
    many = simulate(CONSTANT, PRICES, lines=100_000, items=1, most=100_000, rng=np.random.default_rng(0))
    assert many.seconds > 10


def test_a_run_writes_results_and_a_page(tmp_path: Path) -> None:
    assert (
        main(["distributed-map", "--lines", "1000", "--items", "16", "--environments", "4", "--out", str(tmp_path)])
        == 0
    )
    content = json.loads((tmp_path / "distributed-map.json").read_text())
    assert [run["invocations"] for run in content["runs"]] == [63]
    assert "1,000 lines, compiled int8" in (tmp_path / "distributed-map.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lines", "0"], "--lines: whole numbers of at least 1"),
        (["--items", "0"], "--items: whole numbers of at least 1"),
        (["--variant", "no"], "--variant 'no' is not in these results"),
        (["--region", "eu-west-1"], "no price known for state_transition in eu-west-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distributed-map", *arguments, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["distributed-map", "break-even"])
def test_what_is_simulated_is_what_was_measured(name: str) -> None:
    simulated = load_result(RESULTS / f"{name}.json")["settings"]
    measured = measured_cold(load_result(RESULTS / "cold-start.json"), "compiled int8")
    measured |= measured_warm(load_result(RESULTS / "warm.json"), "compiled int8")
    assert {key: simulated[key] for key in measured if key != "warm_cv"} == {
        key: value for key, value in measured.items() if key != "warm_cv"
    }
