"""Turn the checkpoint an image is to serve into the directory that the image carries.

Build time only: finds the checkpoint (a directory, or a hub id at a pinned commit), checks that it is whole and fits
on the disk, then copies it or has it compiled. Every failure is one sentence and exit status 1, before any long work.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from startup import model_files

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ENGINES = ("transformers", "compiled")


class PrepareError(Exception):
    """The image cannot be built with this model. The message names what is wrong and the remedy."""


def require_usable(model: str, revision: str, engine: str) -> None:
    """Raises PrepareError for what can be seen at once: no such directory, an incomplete one, a loose revision."""
    if engine not in ENGINES:
        raise PrepareError(f"ENGINE is {engine!r}; set it to one of {', '.join(ENGINES)}.")
    if Path(model).is_dir():
        files_of(Path(model))
    elif not HUB_ID.fullmatch(model) or model.startswith("models/"):
        raise PrepareError(
            f"There is no checkpoint {model!r} in the build context; put its directory under models/ and name it so."
        )
    elif not COMMIT.fullmatch(revision):
        raise PrepareError(
            f"MODEL_REVISION is {revision!r}; pin {model} to a commit of the hub repository (40 hex digits)."
        )


def download(repo: str, revision: str, target: Path) -> Path:
    """Fetch the served files of hub repository `repo` at commit `revision`. Raises PrepareError with the remedy."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        files = HfApi().model_info(repo, revision=revision, files_metadata=True).siblings or []
        served = [file for file in files if model_files.is_served(file.rfilename)]
        require_space(sum(file.size or 0 for file in served), target)
        snapshot_download(repo, revision=revision, local_dir=target, allow_patterns=list(model_files.SERVED))
    except errors.GatedRepoError as error:
        raise PrepareError(
            f"{repo} asks for its licence to be accepted: download it yourself and put it under models/."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PrepareError(f"The hub has no public model {repo!r}; check the id.") from error
    except errors.RevisionNotFoundError as error:
        raise PrepareError(f"{repo} has no commit {revision}; copy it from the repository's history.") from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of whichever HTTP library the hub uses
        raise PrepareError(f"The hub could not be reached for {repo}: {error}") from error
    return target


def files_of(checkpoint: Path) -> list[Path]:
    """The files to serve: all of a compiled artifact. Raises PrepareError when something is missing."""
    if is_artifact(checkpoint):
        return [file for file in checkpoint.rglob("*") if file.is_file()]
    files = sorted(file for file in checkpoint.iterdir() if file.is_file() and model_files.is_served(file.name))
    lacking = model_files.missing_from({file.name for file in files})
    if lacking is not None:
        raise PrepareError(
            f"{checkpoint} has no {lacking}: it is no complete checkpoint (`save_pretrained` writes all of it)."
        )
    return files


def is_artifact(directory: Path) -> bool:
    """Whether a directory is compiled already."""
    return (directory / model_files.MANIFEST).is_file()


def require_space(size: int, target: Path) -> None:
    """Raises PrepareError unless the disk of `target` holds `size` bytes more."""
    free = shutil.disk_usage(target).free
    if size > free:
        raise PrepareError(f"The model needs {size / 1e9:.1f} GB and the build's disk has {free / 1e9:.1f} GB free.")


def prepare(model: str, revision: str, out: Path, compile_options: list[str] | None) -> None:
    """Fill `out` with `model`; compiled with `compile_options` unless they are None or it is an artifact already."""
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        checkpoint = Path(model) if Path(model).is_dir() else download(model, revision, Path(scratch))
        files = files_of(checkpoint)
        require_space(sum(file.stat().st_size for file in files), out)
        if compile_options is not None and not is_artifact(checkpoint):
            command = [sys.executable, "-m", "compiler", str(checkpoint), str(out), *compile_options]
            if subprocess.run(command, check=False).returncode != 0:
                raise PrepareError(f"{model} was not compiled; the lines above say why. ENGINE=transformers serves it.")
            return
        for file in files:
            copy = out / file.relative_to(checkpoint)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def main() -> None:
    """Parse the command line of the image build and prepare the model."""
    parser = argparse.ArgumentParser(description="Prepare the model an image serves.")
    parser.add_argument("model", help="directory, hub id, or none")
    parser.add_argument("out", type=Path)
    parser.add_argument("--revision", default="", help="the hub repository's commit")
    parser.add_argument("--engine", default="transformers")
    parser.add_argument("--quantize", default="", help="for the compiled engine")
    parser.add_argument("--context-length", default="", help="for the compiled engine; empty is the checkpoint's own")
    parser.add_argument("--check", action="store_true", help="only say what is wrong that can be seen at once")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.model == "none":
        return
    compile_options = None
    if options.engine == "compiled":
        compile_options = ["--quantize", options.quantize] if options.quantize else []
        compile_options += ["--context-length", options.context_length] if options.context_length else []
    try:
        require_usable(options.model, options.revision, options.engine)
        if not options.check:
            prepare(options.model, options.revision, options.out, compile_options)
    except PrepareError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
