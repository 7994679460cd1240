"""The documents say what the code does: settings, files and figures they name exist."""

import re
from dataclasses import fields
from pathlib import Path

from settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, flags=re.MULTILINE))
    default = Settings()
    expected = {field.name.upper(): getattr(default, field.name) for field in fields(Settings)}
    shown = {name: f"`{str(value).lower()}`" if value not in ("", ()) else "none" for name, value in expected.items()}
    shown |= {"MODEL_DIR": "`models/demo`", "MODEL_NAME": "the directory's name"}
    assert {name: rows.get(name) for name in shown} == shown


def test_links_inside_the_repository_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_make_targets_in_the_readme_exist() -> None:
    makefiles = [ROOT / "Makefile", *(ROOT / "make").glob("*.mk")]
    targets = set(re.findall(r"^([a-z-]+):", "\n".join(file.read_text() for file in makefiles), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
