"""What int8 and int4 cost in fidelity, on the demo checkpoint and its held-out text."""

from pathlib import Path

import pytest

from compiler import check
from compiler.build import build
from engines import cpu_levels

DEMO = Path(__file__).parents[1] / "models" / "demo"
BEST = next(level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantize", "percent", "agreement"), [("none", 0.01, 0.999), ("int8", 1, 0.97), ("int4", 4, 0.9)]
)
def test_perplexity_hardly_changes(tmp_path: Path, quantize: str, percent: float, agreement: float) -> None:
    build(DEMO, tmp_path / "artifact", quantize, levels=[BEST])
    comparison = check.compare(DEMO, tmp_path / "artifact", check.held_out(DEMO, check.read_text(DEMO / "heldout.txt")))
    assert comparison.perplexity is not None
    ours, theirs = comparison.perplexity
    assert abs(ours / theirs - 1) <= percent / 100
    assert comparison.agreement >= agreement
    assert check.acceptable(comparison, quantize)
