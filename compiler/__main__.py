"""`python -m compiler CHECKPOINT OUT --quantize int8`, and `python -m compiler --verify OUT`.

Exit status 3 says that the checkpoint's architecture cannot be compiled: the transformers engine serves it.
"""

import argparse
import math
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from compiler.errors import UNSUPPORTED, CompileError, UnsupportedModelError
from engines import artifact, cpu_levels
from engines.errors import LoadError

AUTO = "auto"
INTERRUPTED = 130
"""Exit status after SIGINT or SIGTERM, as shells have it for the first."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m compiler", description=__doc__)
    parser.add_argument("checkpoint", nargs="?", type=Path, help="a directory that transformers loads as a causal LM")
    parser.add_argument("out", nargs="?", type=Path, help="the artifact directory to write")
    parser.add_argument(
        "--quantize",
        choices=("none", "int8", "int4", AUTO),
        default="int8",
        help=f"{AUTO}: int4 where that is within --quality-bound, else int8",
    )
    parser.add_argument(
        "--quality-bound",
        type=_nats,
        metavar="NATS",
        help=f"for {AUTO}: most nats a token (Kullback-Leibler) that int4 may be from float32, on text that the model "
        "writes",
    )
    parser.add_argument(
        "--no-calibration",
        action="store_true",
        help="round int4 weights by themselves, not by what they are fed with when the model writes text",
    )
    parser.add_argument(
        "--context-length", type=int, help="most tokens of prompt and completion (default: the model's)"
    )
    parser.add_argument(
        "--isa", nargs="+", choices=cpu_levels.levels_here(), help="default: all of this machine's architecture"
    )
    parser.add_argument(
        "--text", type=Path, help="held-out text to measure perplexity on (default: CHECKPOINT/heldout.txt)"
    )
    parser.add_argument(
        "--prompt",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a text, or chat messages in a .json file, that many requests begin with: read now, so that no cold start "
        "has to; repeatable",
    )
    parser.add_argument("--verify", type=Path, metavar="OUT", help="compare an artifact's files with their sha256")
    arguments = parser.parse_args()
    if (arguments.verify is None) == (arguments.out is None):
        parser.error("give CHECKPOINT and OUT, or --verify OUT")
    if (arguments.quantize == AUTO) != (arguments.quality_bound is not None):
        parser.error(f"--quantize {AUTO} and --quality-bound NATS go together")
    if arguments.quantize == AUTO and arguments.no_calibration:
        parser.error(f"--quantize {AUTO} measures on the text that --no-calibration does without")
    return arguments


def _nats(text: str) -> float:
    """A number of nats above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is not a number of nats above 0")


def _verify(directory: Path) -> None:
    compiled = artifact.read(directory)
    compiled.verify()
    print(f"{directory}: {len(compiled.files)} files as compiled.")


def _compile(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in model_loader.py
    from compiler import auto, check, package, prompt_pages  # torch and transformers are imported from here on
    from compiler.build import Built, build

    checkpoint, quantize, prompts = arguments.checkpoint, arguments.quantize, arguments.prompt
    file = arguments.text or checkpoint / "heldout.txt"
    text = None  # or its tokens, read before the long work
    if arguments.text or file.exists():
        text = check.held_out(checkpoint, check.read_text(file))

    with package.staging(arguments.out) as out:  # an artifact that is there is replaced by a checked one only

        def built(quantize: str) -> Built:
            return build(
                checkpoint,
                out,
                quantize,
                arguments.context_length,
                arguments.isa,
                prompts,
                not arguments.no_calibration,
            )

        if quantize == AUTO:
            choice = auto.choose(built, checkpoint, out, arguments.quality_bound)
            quantize, result = choice.quantize, choice.built
            print(choice.said)
        else:
            result = built(quantize)
        comparison = check.compare(checkpoint, out, text)
        print(check.table(comparison, result.seconds))
        if not check.acceptable(comparison, quantize):
            raise UnsupportedModelError("The compiled model does not agree with transformers")
        if said := check.warning(comparison, quantize):
            print(said)
        for line in prompt_pages.check(out, prompts):
            print(line)


def main() -> int:
    """Exit status: 0, or after one sentence on standard error 3 for UnsupportedModelError, 130 where it was interrupted
    and 1 for anything else.
    """
    arguments = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which has what is half done removed
    try:
        if arguments.verify:
            _verify(arguments.verify)
        else:
            _compile(arguments)
    except UnsupportedModelError as error:
        print(f"compiler: {error}", file=sys.stderr)
        return UNSUPPORTED
    except (LoadError, CompileError) as error:
        print(f"compiler: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compiler: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except MemoryError:
        print("compiler: Memory ran out.", file=sys.stderr)
        return 1
    except OSError as error:  # the disk is full, a directory cannot be written, ...
        print(f"compiler: {error.strerror} ({error.filename or arguments.out}).", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
