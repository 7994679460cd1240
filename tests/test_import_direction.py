"""Imports run one way: entry points, loader, api, generation, engines; aws and server stand beside api."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT

MAY_IMPORT = {
    "engines": set(),
    "startup": {"engines"},
    "generation": {"engines"},
    "api": {"generation", "engines"},
    "settings": {"engines"},
    "aws": {"api", "engines", "startup", "settings"},
    "server": {"api", "generation", "engines", "settings"},
    "model_loader": {"api", "generation", "engines", "aws", "startup", "settings"},
    "handler": {"model_loader", "aws", "api", "generation", "startup", "settings"},
    "app": {"model_loader", "server", "aws", "api", "startup", "settings"},
    "compiler": {"api", "generation", "engines"},
    "image": {"compiler", "startup"},
}
"""Which of the project's packages and root modules each may name. Tools, benchmarks and tests may name all."""
PARTS = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} | {
    path.stem for path in ROOT.glob("*.py")
}


def imported(part: str) -> Iterator[tuple[str, str]]:
    """(file, package of ours) for every import in `part`, inside functions too."""
    files = [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").is_file() else sorted((ROOT / part).rglob("*.py"))
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.partition(".")[0]
                if top in PARTS and top != part:
                    yield str(file.relative_to(Path(ROOT))), top


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_a_part_imports_only_what_lies_below_it(part: str) -> None:
    found = list(imported(part))
    assert [(file, name) for file, name in found if name not in MAY_IMPORT[part]] == []
    assert {name for _, name in found} == MAY_IMPORT[part], "the table names an import that is gone"


def test_every_part_that_runs_in_production_is_held() -> None:
    assert set(MAY_IMPORT) | {"benchmarks", "tests", "tools"} == PARTS
