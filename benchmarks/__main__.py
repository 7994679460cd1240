"""The command line: one subcommand per measurement. Each imports what it needs only when it is chosen."""

import argparse
import importlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.errors import InputError, NothingMeasuredError
from compiler.errors import CompileError
from engines.errors import LoadError

COMMANDS = {
    "cold-start": ("benchmarks.cold_start.command", "fresh environments to their first token, phase by phase"),
    "warm": ("benchmarks.warm.command", "first token, later tokens and overhead of a loaded environment"),
    "load": ("benchmarks.load.command", "the FastAPI server under open-loop load, one worker to four"),
    "peers": ("benchmarks.peers.command", "the same weights in llama.cpp, OpenVINO, CTranslate2 and transformers"),
    "batch": ("benchmarks.batch.command", "many sequences at once: rows of a pass, other engines, callers"),
    "roofline": ("benchmarks.roofline.command", "what memory and arithmetic allow here, and how near engines come"),
    "memory": ("benchmarks.memory.command", "what a process holds, and what several on one model share"),
    "fidelity": ("benchmarks.fidelity.command", "perplexity and agreement at each precision, on held-out text"),
    "compile": ("benchmarks.compiling.command", "what compiling a checkpoint takes: time, memory, disk"),
    "shapes": ("benchmarks.shapes.command", "answers that follow a JSON schema beside free text, and what masks cost"),
    "drafts": ("benchmarks.drafts.command", "answers that copy and answers that do not, with drafts and without"),
    "streaming": ("benchmarks.streaming.command", "time to the first byte of an answer, streamed and whole"),
    "prefix": ("benchmarks.prefix.command", "requests that begin as earlier ones did, with prefix reuse and without"),
    "deadlines": ("benchmarks.deadlines.command", "answers when little of an invocation is left, quiet and busy"),
    "remote": ("benchmarks.remote.command", "a deployed function through the Invoke API"),
    "distributed-map": (
        "benchmarks.distributed_map.command",
        "a file of requests through a Distributed Map, simulated",
    ),
    "break-even": ("benchmarks.break_even.command", "which way of serving is cheapest at which request rate"),
}
COMMITTED = Path("benchmarks/results")
"""The results that documents quote."""


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; 0 when it measured.

    2 when its parameters cannot be meant, when all of it failed, or when a results file or a document cannot be drawn.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, help_text) in COMMANDS.items():
        importlib.import_module(module).add_arguments(commands.add_parser(name, help=help_text))
    report = commands.add_parser("report", help="draw tables, plots and quoted documents again from the results")
    report.add_argument("--results", type=Path, default=COMMITTED, help="folder of results files")
    options = parser.parse_args(arguments)
    from benchmarks import report as reports
    from benchmarks.results import Recorder

    try:
        if options.command == "report":
            return _report(options.results)
        path = importlib.import_module(COMMANDS[options.command][0]).run(options)
        print(*(str(written) for written in (path, *reports.render(path))), sep="\n")
    except KeyboardInterrupt:
        kept = f"what was measured so far is in {Recorder.saved}" if Recorder.saved else "nothing was measured yet"
        print(f"\n{parser.prog} {options.command}: interrupted; {kept}", file=sys.stderr)
        return 130
    except (CompileError, InputError, LoadError, NothingMeasuredError) as error:
        print(f"{parser.prog} {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _report(results: Path) -> int:
    """Draw all files of a folder, and what documents quote of the committed ones."""
    from benchmarks import report as reports

    if not results.is_dir():
        raise InputError(f"--results {results} is no folder.")
    drawn = [_drawn(path, lambda path: [path, *reports.render(path)]) for path in sorted(results.glob("*.json"))]
    if results == COMMITTED:
        documents = filter(Path.exists, reports.DOCUMENTS)
        drawn += [_drawn(document, lambda document: reports.requote(document, results)) for document in documents]
    return 0 if all(drawn) else 2


def _drawn(path: Path, draw: Callable[[Path], list[Path]]) -> bool:
    """Whether a file could be drawn; says why where it could not, and the others are drawn all the same."""
    try:
        print(*draw(path), sep="\n")
    except InputError as error:
        print(f"{path} cannot be drawn: {error}", file=sys.stderr)
        return False
    except Exception as error:  # of a run that was interrupted, say
        print(f"{path} cannot be drawn ({type(error).__name__}: {error})", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends with it
    sys.exit(main())
