"""`python -m benchmarks remote`: cold and warm invocations over memory sizes, and what a thousand cost."""

import argparse
import base64
import json
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.break_even.prices import load_prices
from benchmarks.errors import InputError
from benchmarks.remote.report_line import parse_report
from benchmarks.results import Recorder

WHAT = (
    "Invocations of a deployed function over Lambda's Invoke API: the client's time includes the network, the other "
    "figures are Lambda's own REPORT of each invocation. Cold ones follow a published change of the configuration."
)
EVENT = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("function", help="name or ARN of the function")
    add("--endpoint-url", help="another endpoint of the Invoke API, such as that of sam local start-lambda")
    add("--region", default="us-east-1", help="region of the function and of the prices, default us-east-1")
    add("--architecture", default="x86_64", help="for the prices: x86_64 (default) or arm64")
    add("--price", action="append", default=[], metavar="NAME=DOLLARS", help="override a price; repeatable")
    add("--memory-mb", type=int, nargs="+", help="memory sizes to set in turn; default the function's own")
    add("--cold", type=int, default=5, help="cold starts forced at each size, default 5")
    add("--warm", type=int, default=20, help="warm invocations at each size, default 20")
    add("--event", type=Path, help="a JSON file to invoke with; default a completion of 32 tokens")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="remote", help="name of the results file, default remote")


class Remote:
    """The function behind the Invoke API."""

    def __init__(self, client: Any, function: str, event: bytes) -> None:
        self._client = client
        self._function = function
        self._event = event

    def renew(self, memory_mb: int | None, mark: str) -> None:
        """Publish a change of the configuration, after which Lambda starts new environments."""
        current = self._client.get_function_configuration(FunctionName=self._function)
        variables = {**current.get("Environment", {}).get("Variables", {}), "BENCHMARK_ROUND": mark}
        size = {"MemorySize": memory_mb} if memory_mb else {}
        self._client.update_function_configuration(
            FunctionName=self._function, Environment={"Variables": variables}, **size
        )
        self._client.get_waiter("function_updated_v2").wait(FunctionName=self._function, WaiterConfig={"Delay": 1})

    def invoke(self) -> dict[str, Any]:
        """One invocation: the client's seconds and Lambda's report. Raises InputError when the function fails."""
        begun = time.perf_counter()
        answer = self._client.invoke(FunctionName=self._function, LogType="Tail", Payload=self._event)
        payload = answer["Payload"].read()
        seconds = time.perf_counter() - begun
        if "FunctionError" in answer:
            raise InputError(f"{self._function} fails: {payload.decode(errors='replace')[:300]}")
        log = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
        return {"client_s": seconds, **parse_report(log)}


def _event(path: Path | None) -> bytes:
    try:
        return json.dumps(json.loads(path.read_text()) if path else EVENT).encode()
    except (OSError, ValueError) as error:
        raise InputError(f"--event {path} is not a readable JSON file: {error}.") from None


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every invocation; returns the results file's path."""
    if options.cold < 0 or options.warm < 0 or options.cold + options.warm == 0:
        raise InputError("--cold and --warm take numbers of zero or more, one of them above zero.")
    if any(not 128 <= size <= 10_240 for size in options.memory_mb or []):
        raise InputError(f"--memory-mb {options.memory_mb}: Lambda gives 128 to 10240 MB.")
    prices = load_prices(options.region, options.architecture, options.price)
    event = _event(options.event)
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("lambda", region_name=options.region, endpoint_url=options.endpoint_url)
    remote = Remote(client, options.function, event)
    settings = {
        "function": options.function.rpartition(":")[2],
        "prices": {name: prices[name] for name in ("request", "gb_second")},
        "region": options.region,
        "architecture": options.architecture,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "remote", WHAT, settings)
    samples: list[dict[str, Any]] = []
    recorder.data = {"samples": samples, "notes": []}
    sizes: list[int | None] = options.memory_mb or [None]
    with Progress() as progress:
        task = progress.add_task("invocations", total=len(sizes) * (options.cold + options.warm))
        try:
            for size in sizes:
                for i in range(options.cold):
                    remote.renew(size, f"{size}-{i}-{time.time():.0f}")
                    samples.append({"asked": "cold", "round": i, **remote.invoke()})
                    recorder.save(complete=False)
                    progress.advance(task)
                if options.warm and not options.cold:
                    remote.invoke()  # the first call is not counted
                for i in range(options.warm):
                    samples.append({"asked": "warm", "round": i, **remote.invoke()})
                    recorder.save(complete=False)
                    progress.advance(task)
        except (BotoCoreError, ClientError) as error:
            advice = " (an endpoint that cannot change a configuration takes --cold 0)" if options.cold else ""
            if not samples:
                raise InputError(f"{options.function} cannot be measured: {error}{advice}") from None
            recorder.data["notes"].append(f"ended early: {error}")
    recorder.save(complete=not recorder.data["notes"])
    return recorder.path
