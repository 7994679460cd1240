"""A file of requests in S3, answered by the deployed function: the state machine is started, watched and reported on.

The state machine is `BatchStateMachine` of template.yaml: a Distributed Map, which writes a line for each request into
files below the folder it is given, and a manifest that lists them.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tools.batch_errors import BatchError
from tools.batch_tally import Tally
from tools.cost import PER_REQUEST, PRICE

LOOK_SECONDS = 5.0
"""How often a running execution is looked at."""
PER_TRANSITION = 2.5e-5
"""US dollars for one state transition of a standard workflow, us-east-1."""
TRANSITIONS = 2
"""Of a batch's execution: its start and its task."""
S3_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(.+)")


@dataclass(frozen=True, slots=True)
class Clients:
    """AWS's services, as far as a batch needs them."""

    states: Any
    s3: Any
    functions: Any


def run_execution(state_machine: str, source: str, target: str) -> int:
    """Have `state_machine` answer the file at `source` into the folder `target`, both s3:// addresses.

    Returns the exit status. Raises BatchError when it cannot be started or ends without results.
    """
    bucket, key = _address(source)
    results_bucket, prefix = _address(target.rstrip("/"))
    try:
        with (
            closing(boto3.client("stepfunctions")) as states,
            closing(boto3.client("s3")) as s3,
            closing(boto3.client("lambda")) as functions,
        ):
            clients = Clients(states, s3, functions)
            s3.head_object(Bucket=bucket, Key=key)
            asked = {"input": {"bucket": bucket, "key": key}, "output": {"bucket": results_bucket, "prefix": prefix}}
            started = states.start_execution(stateMachineArn=state_machine, input=json.dumps(asked))
            return _follow(clients, state_machine, started["executionArn"], results_bucket, prefix)
    except (BotoCoreError, ClientError) as error:
        raise BatchError(f"AWS refuses: {error}") from error


def _follow(clients: Clients, state_machine: str, execution: str, bucket: str, prefix: str) -> int:
    print(f"started {execution}", file=sys.stderr)
    before = time.monotonic()
    try:
        found = _wait(clients.states, execution)
    except KeyboardInterrupt:
        print(f"\nno longer watched; it goes on: {execution}", file=sys.stderr)
        return 130
    runs = clients.states.list_map_runs(executionArn=execution)["mapRuns"]
    if not runs:
        raise BatchError(f"The execution ended {found['status']} before it read a line: {_reason(found)}")
    run = runs[0]["mapRunArn"]
    folder = f"{prefix}/{run.rpartition(':')[2]}"
    try:
        tally = read_results(clients.s3, bucket, f"{folder}/manifest.json")
    except clients.s3.exceptions.NoSuchKey:
        raise BatchError(f"The execution ended {found['status']} without results: {_reason(found)}") from None
    items = clients.states.describe_map_run(mapRunArn=run)["itemCounts"]
    lost = sum(items[name] for name in ("failed", "timedOut", "aborted", "pending"))
    if lost:
        tally.failures["no_result"] = lost
    tally.seconds = time.monotonic() - before
    print(f"{tally.summary()}; results in s3://{bucket}/{folder}/")
    print(_cost(clients, state_machine, run))
    if found["status"] != "SUCCEEDED":
        raise BatchError(f"The execution ended {found['status']}: {_reason(found)}")
    return 1 if tally.failures else 0


def _wait(states: Any, execution: str) -> Mapping[str, Any]:
    """The execution's description once it is over; shows how far it is meanwhile."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None, note="")
        while True:
            found: Mapping[str, Any] = states.describe_execution(executionArn=execution)
            for run in states.list_map_runs(executionArn=execution)["mapRuns"]:
                described = states.describe_map_run(mapRunArn=run["mapRunArn"])
                items, batches = described["itemCounts"], described["executionCounts"]
                failed = items["failed"] + items["timedOut"] + items["aborted"]
                note = f"{batches['running']:,} batches run" + (f", {failed:,} lines failed" if failed else "")
                progress.update(task, total=items["total"], completed=items["succeeded"] + failed, note=note)
            if found["status"] != "RUNNING":
                return found
            time.sleep(LOOK_SECONDS)


def read_results(s3: Any, bucket: str, manifest: str) -> Tally:
    """What became of the lines that have a result, from the files that a map's manifest lists."""
    files = json.loads(s3.get_object(Bucket=bucket, Key=manifest)["Body"].read())["ResultFiles"]
    tally = Tally()
    for result in _lines(s3, bucket, files["SUCCEEDED"]):
        tally.add(result)
    return tally


def _lines(s3: Any, bucket: str, files: list[Mapping[str, Any]]) -> Iterator[Any]:
    for file in files:
        for text in s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].iter_lines():
            if text.strip():
                yield json.loads(text)


def _cost(clients: Clients, state_machine: str, run: str) -> str:
    """One line on what it cost, or on why that is not known."""
    try:
        definition = json.loads(clients.states.describe_state_machine(stateMachineArn=state_machine)["definition"])
        (answer,) = definition["States"].values()
        (invoke,) = answer["ItemProcessor"]["States"].values()
        name = invoke["Parameters"]["FunctionName"]
        function = clients.functions.get_function_configuration(FunctionName=name)
        batches, seconds = batches_of(clients.states, run)
    except (BotoCoreError, ClientError) as error:
        return f"what it cost is not known: {error}"
    fixed = batches * (PER_REQUEST + TRANSITIONS * PER_TRANSITION)
    if "CapacityProviderConfig" in function:
        return (
            f"about ${fixed:,.2f} for {batches:,} batches, beside the Managed Instances, which cost what they always do"
        )
    gb = function["MemorySize"] / 1024
    price = PRICE[function.get("Architectures", ["x86_64"])[0]]["run"]
    dollars = fixed + seconds * gb * price
    return (
        f"about ${dollars:,.2f}, at most: {batches:,} batches took {seconds:,.0f} s at {function['MemorySize']:,} MB "
        "(list prices of us-east-1, waits between attempts counted as work)"
    )


def batches_of(states: Any, run: str) -> tuple[int, float]:
    """How many executions a map run had, and the seconds that they took together."""
    batches, seconds = 0, 0.0
    for page in states.get_paginator("list_executions").paginate(mapRunArn=run):
        for execution in page["executions"]:
            batches += 1
            if "stopDate" in execution:
                seconds += (execution["stopDate"] - execution["startDate"]).total_seconds()
    return batches, seconds


def _address(text: str) -> tuple[str, str]:
    match = S3_ADDRESS.fullmatch(text)
    if match is None:
        raise BatchError(f"{text} is no address in S3; write s3://bucket/name.")
    return match[1], match[2]


def _reason(found: Mapping[str, Any]) -> str:
    return ": ".join(str(found[name]) for name in ("error", "cause") if found.get(name)) or "it gives no reason"
