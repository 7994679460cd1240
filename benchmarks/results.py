"""The results format every benchmark writes: what was measured, on what machine, with which versions and
settings.

A file is rewritten whole after every sample, so an interrupted run keeps what it has; `complete` says which
it is. Before there is a sample nothing is written, so a run that fails leaves the results of the one before.
"""

import hashlib
import json
import os
import platform
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.errors import InputError, NothingMeasuredError

SCHEMA = 1
MEASURED = ("samples", "rows", "callers", "starts", "peers", "masks", "bounds", "runs", "results")
"""The parts of a benchmark's own data that hold what it measured; the others say how, or what failed."""
_ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:[^\s/=,:]+/)+")
"""The folders of absolute paths, which say nothing to a reader elsewhere."""
_PACKAGES = (
    "numpy",
    "torch",
    "transformers",
    "tokenizers",
    "llguidance",
    "accelerate",
    "safetensors",
    "awslambdaric",
    "aws-lambda-powertools",
    "aws-sam-cli",
    "fastapi",
    "uvicorn",
    "boto3",
    "matplotlib",
)
_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
)


def _cpu_facts() -> tuple[str, list[str]]:
    """The processor's name and those of its instruction sets that matter to inference."""
    name, flags = platform.machine(), []
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() in ("flags", "Features"):
                flags = [flag for flag in _FLAGS if flag in value.split()]
    except OSError:
        pass
    return name, flags


def machine() -> dict[str, Any]:
    """The facts about this machine that a figure depends on; nothing that identifies it."""
    name, flags = _cpu_facts()
    return {
        "cpu": name,
        "architecture": platform.machine(),
        "instruction_sets": flags,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python's version and those of the installed packages that a figure depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _lines(content: dict[str, Any]) -> str:
    """JSON with one line for each key and for each element of a list of objects, such as samples."""
    parts = []
    for key, value in content.items():
        text = json.dumps(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(each) for each in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@dataclass
class Recorder:
    """One run's result file, growing."""

    saved: ClassVar[Path | None] = None
    """The file that this process has written last."""
    path: Path
    benchmark: str
    what: str
    """One sentence: what the figures are figures of."""
    settings: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    """The benchmark's own part: raw samples and what is drawn from them."""
    _head: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Take the machine's facts once, before the run loads it. Raises InputError where no file can be written."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {folder} cannot be a folder for results: {error.strerror}.") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"--out {folder} is a folder that nothing can be written to.")
        self._head = {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "what": self.what,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "command": "python -m benchmarks " + " ".join(_ABSOLUTE.sub("", argument) for argument in sys.argv[1:]),
            "machine": machine(),
            "versions": versions(),
            "settings": self.settings,
        }

    def save(self, *, complete: bool) -> None:
        """Write everything so far; the file is never half written.

        Nothing is written while nothing is measured. Raises NothingMeasuredError when that is so at the end.
        """
        if not self._measured():
            if complete:
                reasons = [f"{name}: {error}" for name, error in self.data.get("failed", {}).items()]
                reasons += self.data.get("skipped", [])
                why = "; ".join(reasons) or "no request was answered"
                raise NothingMeasuredError(f"nothing was measured, and {self.path} is left as it was: {why}")
            return
        partial = self.path.with_suffix(".partial")
        partial.write_text(_lines({**self._head, "complete": complete, **self.data}))
        partial.replace(self.path)
        Recorder.saved = self.path

    def _measured(self) -> bool:
        """Whether there is a figure. A reply of a server that is an error is none."""
        samples = self.data.get("samples", [])
        answered = any(sample.get("status", HTTPStatus.OK) == HTTPStatus.OK for sample in samples)
        return answered or any(self.data.get(name) for name in MEASURED if name != "samples")


def load_result(path: Path, benchmark: str | None = None) -> dict[str, Any]:
    """A result file's content, of the given benchmark if one is named."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a results file: {error}.") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a results file of this version of the benchmarks.")
    if benchmark and content.get("benchmark") != benchmark:
        raise InputError(f"{path} holds results of {content.get('benchmark')}, not of {benchmark}.")
    return content


def digest(content: dict[str, Any]) -> str:
    """A short fingerprint of a result file's content: plots carry it, so a test can tell when they have
    drifted.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def provenance(content: dict[str, Any]) -> str:
    """One line for a page or plot: machine, versions, time."""
    facts = content["machine"]
    packages = content["versions"]
    named = [f"{name} {packages[name]}" for name in ("python", "torch", "transformers") if name in packages]
    return f"{facts['cpus']} x {facts['cpu']}, {', '.join(named)}, {content['date']}"


def measured_on(content: dict[str, Any]) -> str:
    """The machine and the day, for a table."""
    return f"{content['machine']['cpus']} x {content['machine']['cpu']}, {content['date'][:10]}"
