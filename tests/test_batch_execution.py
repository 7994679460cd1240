"""The state machine of template.yaml and `tools.batch --state-machine`, as far as they run here.

moto's interpreter runs the Distributed Map; its Lambda task reaches the handler in this process by HTTP. It knows no
JSONL, ItemBatcher, WriterConfig or tolerance: for those there is only the schema of the language, by cfn-lint, and the
files that a ResultWriter makes are written by hand, in the form that AWS documents.
"""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from cfnlint.api import lint_all  # type: ignore[import-untyped]
from moto import mock_aws
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

from tests.running_server import wait_until
from tests.test_handler_wiring import CONTEXT, handler, item
from tests.test_template import TEMPLATE
from tools import batch_execution
from tools.batch import main
from tools.batch_execution import batches_of, read_results

__all__ = ["handler"]  # the fixture

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:causal-lm"
CONFIGURATION: dict[str, Any] = {"MemorySize": 1769, "Architectures": ["arm64"]}
"""What Lambda says of the function."""
VALUES = {
    "AWS::Partition": "aws",
    "BatchItems": "16",
    "BatchConcurrency": "4",
    "BatchTolerance": "5",
    "Function": FUNCTION,
}


def definition() -> dict[str, Any]:
    """The state machine's definition, with its parameters filled in."""
    text: str = TEMPLATE["Resources"]["BatchStateMachine"]["Properties"]["DefinitionString"]["Fn::Sub"][0]
    for name, value in VALUES.items():
        text = text.replace(f"${{{name}}}", value)
    return dict(json.loads(text))


def interpretable() -> dict[str, Any]:
    """The definition without what moto's interpreter does not know: JSON in place of JSONL, batches of one item."""
    made = definition()
    answer = made["States"]["Answer"]
    answer["ItemReader"]["ReaderConfig"]["InputType"] = "JSON"
    del answer["ItemBatcher"], answer["ToleratedFailurePercentage"], answer["ResultWriter"]["WriterConfig"]
    invoke = answer["ItemProcessor"]["States"]["Invoke"]
    invoke["Parameters"] |= {"Payload": {"Items.$": "States.Array($)"}}
    del invoke["Parameters"]["Payload.$"], invoke["Retry"]
    return made


def test_the_definition_is_one_by_the_schema_of_the_language() -> None:
    made = definition()
    properties = {"RoleArn": "arn:aws:iam::123456789012:role/batch", "Definition": made}
    resource = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    assert faults({"Resources": {"Batch": resource}}) == []
    del made["States"]["Answer"]["ItemProcessor"]["StartAt"]
    assert faults({"Resources": {"Batch": resource}})


def faults(template: dict[str, Any]) -> list[str]:
    """The errors and warnings of cfn-lint."""
    return [str(match) for match in lint_all(json.dumps(template)) if match.rule.id[0] in "EW"]


@pytest.fixture
def aws(handler: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """AWS in this process, its Lambda the handler; the events that reached it."""
    events: list[Any] = []

    class InvokeApi(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events.append(event)
            if event == {"Items": ["crash"]}:
                self._send({"errorType": "Runtime.ExitError", "errorMessage": "it ended"}, "Unhandled")
            else:
                self._send(handler.lambda_handler(event, CONTEXT))

        def do_GET(self) -> None:
            assert self.path.split("?")[0].endswith("/configuration")
            self._send(CONFIGURATION)

        def _send(self, content: Any, function_error: str = "") -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if function_error:
                self.send_header("X-Amz-Function-Error", function_error)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setattr(batch_execution, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(batch_execution, "batches_of", lambda states, run: (3, 1000.0))  # moto does not list them
    monkeypatch.setattr(ExecutionWorker, "start", started(ExecutionWorker.start))
    with ThreadingHTTPServer(("127.0.0.1", 0), InvokeApi) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{server.server_port}")
        with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
            yield events
        server.shutdown()
        thread.join()


def started(start: Callable[[ExecutionWorker], None]) -> Callable[[ExecutionWorker], None]:
    """moto's `start`, back once the execution can be described: before, `list_map_runs` ends in an AttributeError."""

    def wait_too(worker: ExecutionWorker) -> None:
        start(worker)
        wait_until(lambda: worker.env is not None, "the execution has begun")

    return wait_too


def state_machine() -> str:
    """The state machine and its bucket, made."""
    boto3.client("s3").create_bucket(Bucket="files")
    made = boto3.client("stepfunctions").create_state_machine(
        name="stack-batch", definition=json.dumps(interpretable()), roleArn="arn:aws:iam::123456789012:role/batch"
    )
    return str(made["stateMachineArn"])


def test_a_file_goes_through_the_map_to_the_function(aws: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    arn = state_machine()
    lines = [item("a"), item("b", temperature=9), "no request"]
    boto3.client("s3").put_object(Bucket="files", Key="in/requests.jsonl", Body=json.dumps(lines))
    assert main(["--state-machine", arn, "s3://files/in/requests.jsonl", "s3://files/out/"]) == 0
    assert sorted(map(json.dumps, aws)) == sorted(json.dumps({"Items": [line]}) for line in lines)
    said = capsys.readouterr()
    assert "results in s3://files/out/" in said.out
    assert "about $0.02, at most: 3 batches took 1,000 s at 1,769 MB" in said.out
    assert "3/3" in said.err


def test_on_managed_instances_a_map_costs_no_time_of_the_function(
    aws: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = {"CapacityProviderArn": "arn:aws:lambda:us-east-1:123456789012:capacity-provider:instances"}
    monkeypatch.setitem(
        CONFIGURATION, "CapacityProviderConfig", {"LambdaManagedInstancesCapacityProviderConfig": provider}
    )
    arn = state_machine()
    boto3.client("s3").put_object(Bucket="files", Key="requests.jsonl", Body=json.dumps([item("a")]))
    assert main(["--state-machine", arn, "s3://files/requests.jsonl", "s3://files/out"]) == 0
    assert "about $0.00 for 3 batches, beside the Managed Instances" in capsys.readouterr().out


def test_a_state_machine_or_file_that_is_not_there_is_one_sentence(
    aws: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arn = state_machine()
    assert main(["--state-machine", arn, "s3://files/none.jsonl", "s3://files/out"]) == 2
    boto3.client("s3").put_object(Bucket="files", Key="requests.jsonl", Body="[]")
    assert main(["--state-machine", f"{arn}-none", "s3://files/requests.jsonl", "s3://files/out"]) == 2
    assert main(["--state-machine", arn, "requests.jsonl", "s3://files/out"]) == 2
    *_, first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("error: AWS refuses: ")
    assert second.startswith("error: AWS refuses: ")
    assert third == "error: requests.jsonl is no address in S3; write s3://bucket/name."


def test_lines_whose_invocation_failed_are_counted_as_such(aws: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    arn = state_machine()
    boto3.client("s3").put_object(Bucket="files", Key="requests.jsonl", Body=json.dumps(["crash", item("a")]))
    assert main(["--state-machine", arn, "s3://files/requests.jsonl", "s3://files/out"]) == 1
    assert "1 failed (1 no_result)" in capsys.readouterr().out


def test_a_batch_that_ends_without_results_says_why(aws: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    arn = state_machine()
    boto3.client("s3").put_object(Bucket="files", Key="requests.jsonl", Body="no JSON")
    assert main(["--state-machine", arn, "s3://files/requests.jsonl", "s3://files/out"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: The execution ended FAILED without results: ")


def test_the_results_of_a_map_are_counted(aws: list[Any], handler: Any) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="files")
    results = handler.lambda_handler({"Items": [item("a"), item("b", temperature=9), "no request"]}, CONTEXT)
    parts = {"out/SUCCEEDED_0.jsonl": results[:2], "out/SUCCEEDED_1.jsonl": results[2:]}
    for key, lines in parts.items():
        s3.put_object(Bucket="files", Key=key, Body="\n".join(map(json.dumps, lines)))
    listed = {"SUCCEEDED": [{"Key": key, "Size": 1} for key in parts], "FAILED": [], "PENDING": []}
    s3.put_object(Bucket="files", Key="out/manifest.json", Body=json.dumps({"ResultFiles": listed}))
    tally = read_results(s3, "files", "out/manifest.json")
    assert (tally.answered, tally.completion_tokens) == (1, 4)
    assert dict(tally.failures) == {"400": 1, "invalid_request": 1}


def test_the_time_of_a_map_is_that_of_its_executions() -> None:
    """moto has no executions of a map run; this is the shape that botocore's model of the API allows."""
    states = boto3.client("stepfunctions", region_name="us-east-1")
    begun = datetime(2026, 11, 1, tzinfo=UTC)
    run = "arn:aws:states:us-east-1:123456789012:mapRun:stack-batch/Answer:1"

    def execution(number: int, **stop: datetime) -> dict[str, Any]:
        arn = f"arn:aws:states:us-east-1:123456789012:execution:stack-batch/Answer:{number}"
        return {
            "executionArn": arn,
            "stateMachineArn": arn,
            "name": str(number),
            "status": "SUCCEEDED" if stop else "RUNNING",
            "startDate": begun,
            **stop,
        }

    pages = [[execution(1, stopDate=begun + timedelta(seconds=3))], [execution(2), execution(3, stopDate=begun)]]
    with Stubber(states) as stub:
        stub.add_response("list_executions", {"executions": pages[0], "nextToken": "more"}, {"mapRunArn": run})
        stub.add_response("list_executions", {"executions": pages[1]}, {"mapRunArn": run, "nextToken": "more"})
        assert batches_of(states, run) == (3, 3.0)
