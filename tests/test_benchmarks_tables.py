"""Numbers in tables."""

import pytest

from benchmarks.tables import count


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.19, "0.19"), (1.5, "1.5"), (9.97, "10"), (10, "10"), (123, "120"), (987_654_321_012, "990,000,000,000")],
)
def test_a_count_has_two_significant_digits(value: float, text: str) -> None:
    assert count(value) == text
