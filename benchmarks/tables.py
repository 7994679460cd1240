"""Markdown tables and the numbers in them."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers and stand right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows)) + "\n"


def dollars(usd: float) -> str:
    """Three significant digits or whole cents, whichever is finer."""
    if usd >= 100:
        return f"${usd:,.0f}"
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.3g}"


def seconds(value: float) -> str:
    """Milliseconds below one second, seconds above."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def milliseconds(value: float) -> str:
    """Seconds as a number of milliseconds, three significant digits or more."""
    return f"{value * 1000:,.0f}" if value >= 0.1 else f"{value * 1000:.3g}"


def count(value: float) -> str:
    """A rounded number of requests with thousands apart: two significant digits."""
    if value < 10:
        return f"{value:.2g}"
    digits = max(0, len(str(int(value))) - 2)
    return f"{round(value / 10**digits) * 10**digits:,.0f}"


def percent(share: float) -> str:
    """A share in percent, two significant digits when it is small."""
    if 0 < share < 1e-4:
        return "<0.01 %"
    return f"{share * 100:.2g} %" if share < 0.995 else f"{share * 100:.0f} %"
