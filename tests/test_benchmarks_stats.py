"""What a run says about its own noise: medians, spread, ratios within a round."""

import pytest

from benchmarks.stats import noise_note, paired_ratio, summarise

QUIET = {"load_average_at_start": 0.0, "cpus": 2}


def test_a_summary_takes_its_width_from_the_middle_half() -> None:
    summary = summarise([1.0, 2.0, 3.0, 4.0, 100.0])
    assert summary.median == 3
    assert summary.spread == pytest.approx(2 / 3)
    assert summary.noisy
    assert not summarise([1.0, 1.01, 1.02]).noisy


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    median, low, high = paired_ratio([1, 10, 100], [2, 20, 200])
    assert (median, low, high) == (2, 2, 2)


def test_a_noisy_run_says_so_and_a_busy_machine_too() -> None:
    assert "Noisy run" in noise_note({"a": 0.02, "b": 0.4}, QUIET)
    assert "40% for b" in noise_note({"a": 0.02, "b": 0.4}, QUIET)
    assert "Noisy" not in noise_note({"a": 0.02}, QUIET)
    assert "Busy machine" in noise_note({"a": 0.02}, {"load_average_at_start": 3.0, "cpus": 2})
