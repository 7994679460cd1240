"""The Dockerfile as data: what each stage copies from the repository, laid out in a folder as Docker would."""

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass
class Stage:
    """One `FROM`: what it is based on, what it copies and the commands it runs or starts with."""

    name: str
    base: str
    copies: list[tuple[str, list[str], str]] = field(default_factory=list)
    """Stage copied from (empty: the repository), sources, target."""
    commands: list[str] = field(default_factory=list)
    workdir: str = "/"


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name; the last one, which has none, is `image`."""
    found: dict[str, Stage] = {}
    stage = Stage("", "")
    for instruction in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        word, _, rest = instruction.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = found.setdefault(name or "image", Stage(name or "image", base))
            if base in found:
                stage.workdir = found[base].workdir
        elif word == "WORKDIR":
            stage.workdir = rest
        elif word == "COPY":
            *sources, target = rest.removeprefix("--from=").split()
            origin = sources.pop(0) if rest.startswith("--from=") else ""
            folder = "/" if target.endswith("/") else ""
            stage.copies.append((origin, sources, f"{Path(stage.workdir, target)}{folder}"))
        elif word in ("RUN", "ENTRYPOINT", "CMD"):
            stage.commands.append(rest)
    return found


def reaches_the_builder(path: Path) -> bool:
    """Whether `.dockerignore` lets a file or folder of the repository's root, or one below it, into the build."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    relative = path.relative_to(ROOT)
    return any(relative.match(each) if "*" in each else relative.is_relative_to(each) for each in kept)


def lay_out(all_stages: dict[str, Stage], name: str, root: Path) -> None:
    """Put below `root` whatever of the repository a stage holds: its base stage's, then what it copies."""
    stage = all_stages[name]
    if stage.base in all_stages:
        lay_out(all_stages, stage.base, root)
    for origin, sources, target in stage.copies:
        if origin:
            other = root / ".stages" / origin
            if not other.exists():
                lay_out(all_stages, origin, other)
        for source in sources:
            found = other.glob(source.lstrip("/")) if origin else ROOT.glob(source)
            for path in sorted(found):
                if origin or reaches_the_builder(path):
                    _copy(path, root / target.lstrip("/"), into=target.endswith("/") or len(sources) > 1)


def _copy(path: Path, target: Path, into: bool) -> None:
    """As Docker does: of a folder its content, a file under its own name where the target is a folder."""
    if path.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, target, ignore=ignored, copy_function=_link_weights, dirs_exist_ok=True)
    else:
        target = target / path.name if into else target
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_weights(str(path), str(target))


def _link_weights(source: str, target: str) -> None:
    """Copy a file; link to one that is large."""
    if source.endswith((".safetensors", ".whl")):
        Path(target).unlink(missing_ok=True)
        os.symlink(Path(source).resolve(), target)
    else:
        shutil.copyfile(source, target)
