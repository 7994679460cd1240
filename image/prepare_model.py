"""Turn the checkpoint an image is to serve into the directory that the image carries: `python3 -m image.prepare_model`.

Build time only: finds the checkpoint (a directory, or a hub id at a pinned commit), checks that it is whole and that it
fits, has it compiled where that is asked for and possible, copies it where not, and says in one sentence which and why.
Every failure is one sentence and exit status 1, before any long work where it can be seen before.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from image.checkpoint import files_of, is_artifact, parameters
from image.compilation import compile_checkpoint
from image.errors import PrepareError
from image.hub import download
from image.room import require_memory_to_compile, require_space

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
AUTO = "auto"
"""The word that leaves a choice to this program, or to the compiler."""
ENGINES = (AUTO, "compiled", "transformers")
BYTES_PER_PARAMETER = {"int8": 1.0, "int4": 0.6, "none": 4.0, AUTO: 1.0}
"""Precisions of a compiled model, and what its weight file takes of the disk."""


def require_usable(options: argparse.Namespace) -> None:
    """Raises PrepareError for what can be seen at once: a word that is none of its choices, no such directory or an
    incomplete one, a loose revision.
    """
    if options.engine not in ENGINES:
        raise PrepareError(f"ENGINE is {options.engine!r}; set it to one of {', '.join(ENGINES)}.")
    if options.quantize not in BYTES_PER_PARAMETER:
        raise PrepareError(f"QUANTIZE is {options.quantize!r}; set it to one of {', '.join(BYTES_PER_PARAMETER)}.")
    if options.quantize == AUTO and not re.fullmatch(r"(?!0*\.?0*$)\d{1,2}(\.\d{1,6})?", options.quality_bound):
        raise PrepareError(
            f"QUALITY_BOUND is {options.quality_bound!r}; set it to a number of nats a token above 0, such as 0.02."
        )
    if options.context_length and not re.fullmatch(r"[1-9]\d{0,6}", options.context_length):
        raise PrepareError(
            f"CONTEXT_LENGTH is {options.context_length!r}; set it to a number of tokens, or leave it empty for the "
            "model's own."
        )
    model = options.model
    prompts = prompt_files(options.prompts)
    out = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PrepareError(f"{out} is no empty directory; name another for the model.")
    if prompts and (model == "none" or options.engine == "transformers"):
        why = "MODEL=none" if model == "none" else "ENGINE=transformers"
        raise PrepareError(f"PROMPTS is {options.prompts!r}, and {why} compiles no model that could read it.")
    if model == "none":
        return
    if Path(model).is_dir():
        files_of(Path(model))
        if is_artifact(Path(model)) and options.engine == "transformers":
            raise PrepareError(f"{model} is compiled already; the transformers engine needs the checkpoint it was.")
        if is_artifact(Path(model)) and prompts:
            raise PrepareError(f"{model} is compiled already; prompts are read when it is: `--prompt` of the compiler.")
    elif not HUB_ID.fullmatch(model) or model.startswith("models/"):
        raise PrepareError(
            f"There is no checkpoint {model!r} in the build context; put its directory under models/ and name it so."
        )
    elif not COMMIT.fullmatch(options.revision):
        raise PrepareError(
            f"MODEL_REVISION is {options.revision!r}; pin {model} to a commit of the hub repository (40 hex digits)."
        )


def prompt_files(prompts: str) -> list[Path]:
    """The files that PROMPTS names: one, or all in a folder. Raises PrepareError where there is none."""
    if not prompts:
        return []
    path = Path(prompts)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise PrepareError(
            f"There is no prompt {prompts!r} in the build context; put it under prompts/ and name it so."
        )
    return files


def prepare(options: argparse.Namespace) -> str:
    """Fill `options.out` with the model; the sentence that says what will serve it. Raises PrepareError."""
    model, out = options.model, options.out
    if model == "none":
        return "The image holds no model: MODEL_DIR names it at run time."
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        checkpoint = Path(model) if Path(model).is_dir() else download(model, options.revision, Path(scratch))
        files = files_of(checkpoint)
        _require_chat_template(checkpoint)
        if is_artifact(checkpoint):
            _copy(files, checkpoint, out)
            return f"{model} is a compiled model: the compiled engine serves it."
        if options.engine == "transformers":
            _copy(files, checkpoint, out)
            return f"transformers serves {model}: ENGINE=transformers asks for it."
        reason = _compiled(checkpoint, files, options)
        if reason is None:
            precision = json.loads((out / "manifest.json").read_text())["quantization"]
            chosen = f", which chose {precision}" if options.quantize == AUTO else ""
            return f"The compiled engine serves {model} (QUANTIZE={options.quantize}{chosen})."
        if options.engine == "compiled":
            raise PrepareError(f"{model} cannot be compiled: {reason}. ENGINE=auto or transformers serves it.")
        _copy(files, checkpoint, out)
        unread = " No prompt was read." if options.prompts else ""
        return f"transformers serves {model}, which cannot be compiled: {reason}.{unread}"


def _require_chat_template(checkpoint: Path) -> None:
    """Raises PrepareError for a chat template that no request could be rendered with."""
    from compiler.errors import CompileError
    from compiler.templates import require_parsed  # imports jinja2, which `--check` does without

    try:
        require_parsed(checkpoint)
    except CompileError as error:
        raise PrepareError(str(error)) from None


def _compiled(checkpoint: Path, files: list[Path], options: argparse.Namespace) -> str | None:
    """Compile `checkpoint`; None, or why its architecture does not compile. Raises PrepareError."""
    size = parameters(files)
    require_memory_to_compile(size)
    require_space(int(size * BYTES_PER_PARAMETER[options.quantize]), options.out.parent)
    context = ["--context-length", options.context_length] if options.context_length else []
    prompts = [f"--prompt={file}" for file in prompt_files(options.prompts)]
    bound = ["--quality-bound", options.quality_bound] if options.quantize == AUTO else []
    return compile_checkpoint(checkpoint, options.out, ["--quantize", options.quantize, *bound, *context, *prompts])


def _copy(files: list[Path], checkpoint: Path, out: Path) -> None:
    require_space(sum(file.stat().st_size for file in files), out.parent)
    for file in files:
        copy = out / file.relative_to(checkpoint)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def main() -> None:
    """Parse the command line of the image build and prepare the model."""
    parser = argparse.ArgumentParser(prog="python3 -m image.prepare_model", description=__doc__)
    parser.add_argument("model", help="directory, hub id, or none")
    parser.add_argument("out", type=Path)
    parser.add_argument("--revision", default="", help="the hub repository's commit")
    parser.add_argument("--engine", default=AUTO, help=", ".join(ENGINES))
    parser.add_argument("--quantize", default="int8", help=f"of a compiled model: {', '.join(BYTES_PER_PARAMETER)}")
    parser.add_argument(
        "--quality-bound", default="0.02", help=f"most nats a token from float32 that {AUTO} takes int4 at"
    )
    parser.add_argument("--context-length", default="", help="of a compiled model; empty is the checkpoint's own")
    parser.add_argument("--prompts", default="", help="file or folder that a compiled model has read already")
    parser.add_argument("--check", action="store_true", help="only say what is wrong that can be seen at once")
    options = parser.parse_args()
    try:
        require_usable(options)
        options.out.mkdir(parents=True, exist_ok=True)
        if not options.check:
            print(prepare(options), flush=True)
    except PrepareError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
