"""The command end to end: refusals, prices, the bill, and the file it writes."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.break_even.choices import CHOICES, fargate_size, instances_needed
from benchmarks.break_even.expected import cold_share, later_than, usd_month
from benchmarks.break_even.function import Function, Traffic
from benchmarks.break_even.prices import load_prices
from benchmarks.break_even.sweep import DAY_S, Change, Sweep, changes, cheaper_for_good, rates_between
from benchmarks.break_even.timeouts import Uniform
from benchmarks.errors import InputError

pytest.importorskip("matplotlib")
TIMES = ["--cold-s", "0.4", "--load-s", "0.25", "--warm-s", "0.6"]
FUNCTION = Function(1769, 0.4, 0.25, 0.3, 0.6, 0.5)
TRAFFIC = Traffic(Uniform(300, 420), 1000, 1, 60)


def sweep(*per_day: float) -> Sweep:
    return Sweep(FUNCTION, TRAFFIC, load_prices("us-east-1", "x86_64"), per_day, 240, 0.005, 0, 60_000)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--load-s", "0.9"], "--load-s 0.9 is more than --cold-s 0.4"),
        (["--warm-s", "0"], "--warm-s 0"),
        (["--warm-s", "nan"], "--warm-s nan"),
        (["--memory-mb", "64"], "128 to 10240 MB"),
        (["--per-day", "100", "10"], "two rising rates"),
        (["--per-day", "10", "1e9"], "stops at 20 million"),
        (["--region", "moon-1"], "no prices for region 'moon-1'"),
        (["--architecture", "riscv"], "no 'riscv' prices"),
        (["--price", "gb_second=free"], "'free' is not a number of dollars"),
        (["--price", "tea=1"], "NAME one of container_gb_hour"),
        (["--concurrency", "0"], "at least one request"),
        (["--burst-factor", "0.5"], "1 (no bursts) or more"),
        (["--ping-every-s", "5"], "once a minute at most"),
        (["--idle-timeout", "never"], "--idle-timeout 'never'"),
        (["--p99-s", "-1"], "--p99-s -1"),
        (["--seed", "-1"], "--seed -1: zero or more"),
        (["--per-day", "1e-6", "10"], "pings would be simulated between them, and 20,000,000 are the most"),
        (["--price", "gb_second=0", "--price", "request=0"], "--price: load per request, on demand would cost nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["break-even", *TIMES, *arguments, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_times_the_committed_measurements_count(tmp_path: Path) -> None:
    assert main(["break-even", "--quick", "--per-day", "10", "1000", "--out", str(tmp_path)]) == 0
    committed = json.loads(Path("benchmarks/results/break-even.json").read_text())
    made = json.loads((tmp_path / "break-even.json").read_text())
    times = ("cold_s", "load_s", "warm_s", "warm_cv")
    assert {name: made["settings"][name] for name in times} == {name: committed["settings"][name] for name in times}


def test_a_run_writes_results_a_page_and_plots(tmp_path: Path) -> None:
    arguments = ["--quick", "--per-day", "10", "1000", "--burst-factor", "4", "--out", str(tmp_path)]
    assert main(["break-even", *TIMES, *arguments]) == 0
    content = json.loads((tmp_path / "break-even.json").read_text())
    assert content["complete"]
    assert set(content["results"]) == set(CHOICES)
    assert all(len(rows) == len(content["per_day"]) for rows in content["results"].values())
    assert content["settings"]["burst_factor"] == 4
    assert "simulated" in (tmp_path / "break-even.md").read_text()
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        f"break-even-{name}.svg" for name in ("cost", "latency", "choices", "cold-starts")
    }


def test_a_choice_without_a_known_price_is_left_out_by_name_until_one_is_given() -> None:
    prices = load_prices("eu-west-1", "x86_64")
    lacking = Sweep(FUNCTION, TRAFFIC, prices, [10], 240, 0.005, 0, 100)
    assert lacking.left_out["snapstart"] == ["snapstart_cache_gb_second", "snapstart_restore_gb"]
    assert "container" not in lacking.names
    given = load_prices("eu-west-1", "x86_64", ["load_balancer_hour=0"])
    assert "container" in Sweep(FUNCTION, TRAFFIC, given, [10], 240, 0.005, 0, 100).names
    assert given.sources["load_balancer_hour"] == "given on the command line"


def test_every_price_in_the_table_names_a_source() -> None:
    for region in ("us-east-1", "eu-west-1", "eu-central-1", "ap-northeast-1"):
        prices = load_prices(region, "x86_64")
        assert set(prices.usd) == set(prices.sources)
        assert all(prices.sources.values())


@pytest.mark.parametrize("per_day", [50, 2_000, 300_000])
def test_the_simulated_bill_agrees_with_the_closed_form_for_every_choice(per_day: float) -> None:
    run = sweep(per_day)
    for name, (result,) in run.run(lambda: None).items():
        expected = usd_month(name, FUNCTION, per_day / DAY_S, TRAFFIC.timeout, run.prices, 240, 0.005)
        assert result.usd_month == pytest.approx(expected, rel=0.02), name
        share = cold_share(name, FUNCTION, per_day / DAY_S, TRAFFIC.timeout)
        assert result.cold == pytest.approx(share, rel=0.15, abs=1e-3), name


def test_the_simulated_99th_percentile_is_the_one_the_closed_form_finds_1_percent_beyond() -> None:
    run = sweep(300)
    results = run.run(lambda: None)
    for name in ("load_per_request", "on_demand", "snapstart", "provisioned"):
        late = later_than(name, FUNCTION, 300 / DAY_S, TRAFFIC.timeout, results[name][0].p99_s)
        assert late == pytest.approx(0.01, rel=0.2), name


def test_the_bill_of_one_warm_request_is_aws_arithmetic() -> None:
    constant = Function(1024, 0.0, 0.0, 0.0, 0.1234, 0.0)
    prices = load_prices("us-east-1", "arm64")
    run = Sweep(constant, TRAFFIC, prices, [1000], 240, 0.005, 0, 5000)
    (result,) = run.run(lambda: None)["on_demand"]
    requests = 1000 / DAY_S * 730 * 3600
    assert result.usd_month == pytest.approx(requests * (2e-7 + 0.124 * 1.33334e-05))


def test_a_container_is_the_smallest_task_with_the_functions_cpus_and_memory() -> None:
    assert fargate_size(442) == (0.25, 1)
    assert fargate_size(1769) == (1, 2)
    assert fargate_size(3008) == (2, 4)
    assert fargate_size(10_240) == (8, 16)
    with pytest.raises(InputError, match="no Fargate task"):
        fargate_size(20_000)


def test_managed_instances_are_three_or_more_of_the_size_that_costs_least() -> None:
    assert instances_needed(1769, 1) == (3, 2)
    assert instances_needed(1769, 4) == (4, 2)  # three of four vCPUs would be twelve
    assert instances_needed(1769, 100) == (7, 16)  # fifteen vCPUs each are for requests
    assert instances_needed(442, 40) == (4, 4)  # four requests to a vCPU
    assert instances_needed(10_240, 1) == (3, 8)


def test_the_bill_of_managed_instances_is_three_of_them_and_their_requests() -> None:
    run = Sweep(FUNCTION, TRAFFIC, load_prices("us-east-1", "x86_64"), [10], 240, 0.005, 0, 5000)
    (result,) = run.run(lambda: None)["managed"]
    requests = 10 / DAY_S * 730 * 3600
    assert result.usd_month == pytest.approx(3 * 0.08925 * 1.15 * 730 + requests * 2e-7)
    assert (result.units, result.cold, result.throttled) == (3, 0, 0)


def test_managed_instances_refuse_less_than_a_thousandth() -> None:
    for result in sweep(2_000, 300_000, 3_000_000).run(lambda: None)["managed"]:
        assert result.throttled < 0.001


def test_the_rates_at_which_the_best_choice_changes() -> None:
    rates = rates_between(10, 10_000, 1)
    results = sweep(*rates).run(lambda: None)
    found = changes(rates, results, math.inf)
    assert found[0].before is None
    assert [change.after for change in found] == [*(change.before for change in found[1:]), found[-1].after]
    assert changes(rates, results, 0.001) == [Change(10, None, None)]


def test_a_choice_is_cheaper_for_good_from_its_last_crossing() -> None:
    rates = [1.0, 10.0, 100.0, 1000.0]
    assert cheaper_for_good(rates, [1, 5, 5, 100], [2, 4, 10, 50]) == pytest.approx(100 * 10 ** (1 / 2))
    assert cheaper_for_good(rates, [1, 1, 1, 1], [2, 2, 2, 2]) is None
    assert cheaper_for_good(rates, [2, 2, 2, 2], [1, 1, 1, 1]) == 1.0
