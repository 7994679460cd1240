"""A file of requests in OpenAI's Batch format: answered here, or by a deployed function through Step Functions.

    python -m tools.batch requests.jsonl results.jsonl
    MODEL_DIR=build/demo-int8 python -m tools.batch requests.jsonl results.jsonl
    python -m tools.batch --state-machine ARN s3://bucket/requests.jsonl s3://bucket/results

Exit status: 0 when every line has its answer, 1 when some have an error instead, 2 when the batch could not be run.
"""

import argparse
import sys
from pathlib import Path

from tools.batch_errors import BatchError


def answer_here(source: str, target: str) -> int:
    """Answer the lines of one file into another; the exit status. Raises BatchError."""
    from api.service import Service
    from engines.errors import LoadError
    from model_loader import load_model
    from settings import Settings
    from tools.batch_files import answer_file, count_lines

    lines = count_lines(Path(source))
    try:
        settings = Settings.from_env()
        model = load_model(settings)
    except LoadError as error:
        raise BatchError(str(error)) from None
    service = Service(
        model,
        max_tokens=settings.max_tokens,
        max_choices=settings.max_choices,
        concurrency=settings.concurrency,
        prefix_cache=settings.prefix_cache,
        draft_tokens=settings.prompt_lookup_num_tokens,
    )
    try:
        tally = answer_file(Path(source), Path(target), service, lines)
    except KeyboardInterrupt:
        print(f"\ninterrupted; {target} keeps what is done, the same command does the rest", file=sys.stderr)
        return 130
    print(tally.summary())
    return 1 if tally.failures or tally.failed_before else 0


def answer_in_the_cloud(state_machine: str, source: str, target: str) -> int:
    """Have a state machine do it, and report; the exit status. Raises BatchError."""
    from tools.batch_execution import run_execution

    return run_execution(state_machine, source, target)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.batch", description="Answer a file of requests.")
    parser.add_argument("source", metavar="IN", help="JSON lines in OpenAI's Batch format; with --state-machine in S3")
    parser.add_argument(
        "target", metavar="OUT", help="file for the results, continued where it exists; or an S3 folder"
    )
    parser.add_argument(
        "--state-machine", metavar="ARN", help="have this one do it: the stack's output BatchStateMachine"
    )
    options = parser.parse_args(arguments)
    try:
        if options.state_machine:
            return answer_in_the_cloud(options.state_machine, options.source, options.target)
        return answer_here(options.source, options.target)
    except BatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
