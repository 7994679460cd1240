"""The SAM application on this machine: `sam local` invokes the image as AWS would, and real clients talk to it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from openai import OpenAI

from tests.containers import IMAGE
from tests.running_server import wait_until

pytestmark = pytest.mark.container
ROOT = Path(__file__).parent.parent
SAM = ROOT / ".venv" / "sam" / "bin" / "sam"
ENVIRONMENT = {**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
DIRECT = json.loads((ROOT / "events" / "direct.json").read_text())


def heed_interrupts() -> None:
    """Undo what a shell does to background jobs, which would have `sam` ignore the signal that ends it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def serving(command: str) -> Iterator[str]:
    """`sam local COMMAND` on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(SAM), "local", command, "--config-env", "local", "--port", str(port)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout
    for line in process.stdout:
        if "Running on" in line:
            break
    else:
        pytest.fail(f"sam local {command} ended with status {process.wait()}")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # which has sam remove its container
        process.communicate()


def sam_invoke(event: Path) -> subprocess.CompletedProcess[str]:
    command = [str(SAM), "local", "invoke", "CausalLM", "--config-env", "local", "--event", str(event)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["direct", "http-api"])
def test_sam_local_invoke_answers_the_sample_events(name: str) -> None:
    result = sam_invoke(ROOT / "events" / f"{name}.json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    body = json.loads(answer["body"]) if "body" in answer else answer
    assert body["usage"]["completion_tokens"] > 0


def test_sam_local_invoke_shows_a_bad_request_as_a_function_error(tmp_path: Path) -> None:
    event = tmp_path / "bad.json"
    event.write_text('{"prompt": 7}')
    assert json.loads(sam_invoke(event).stdout)["errorType"] == "InvalidRequestError"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with serving("start-api") as address:
        yield address


def test_the_openai_client_talks_to_start_api(api: str) -> None:
    with OpenAI(base_url=f"{api}/v1", api_key="none", timeout=180) as client:
        chat = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Tell me a story about a fox."}], max_tokens=20
        )
        assert chat.choices[0].message.content
        assert [model.id for model in client.models.list()] == ["demo"]


def test_start_api_keeps_the_model_between_requests(api: str) -> None:
    cold = []
    for _ in range(2):
        request = urllib.request.Request(
            f"{api}/v1/completions", json.dumps(DIRECT).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=180) as response:
            cold.append(json.load(response)["timings"]["cold_start"])
    assert cold[1] is False


@pytest.fixture(scope="module")
def invoke_api() -> Iterator[str]:
    with serving("start-lambda") as address:
        yield address


def test_boto3_invokes_start_lambda_by_name(invoke_api: str) -> None:
    config = Config(signature_version=UNSIGNED, region_name="us-east-1", read_timeout=180)
    client = boto3.client("lambda", endpoint_url=invoke_api, config=config)
    with contextlib.closing(client):
        answer = client.invoke(FunctionName="CausalLM", Payload=json.dumps(DIRECT))
        assert json.loads(answer["Payload"].read())["choices"][0]["text"]
        accepted = client.invoke(FunctionName="CausalLM", InvocationType="Event", Payload=json.dumps(DIRECT))
        assert accepted["StatusCode"] == 202


def test_start_lambda_runs_the_function_of_managed_instances_with_requests_at_once(invoke_api: str) -> None:
    config = Config(signature_version=UNSIGNED, region_name="us-east-1", read_timeout=180)
    client = boto3.client("lambda", endpoint_url=invoke_api, config=config)

    def invoke(_: int) -> Any:
        answer = client.invoke(FunctionName="ManagedCausalLM", Payload=json.dumps(DIRECT))
        return json.loads(answer["Payload"].read())

    def three_are_answered() -> bool:
        answers = list(threads.map(invoke, range(3)))
        if {"errorType": "Runtime.Unavailable"} in answers:  # what the emulator says before all processes have loaded
            return False
        assert len({answer["choices"][0]["text"] for answer in answers}) == 1
        return True

    with contextlib.closing(client), ThreadPoolExecutor() as threads:
        wait_until(three_are_answered, "three requests at once are answered")


def test_the_invoke_tool_prints_text_and_says_errors(invoke_api: str) -> None:
    command = [sys.executable, "-m", "tools.invoke", "CausalLM", "--endpoint-url", invoke_api]
    right = subprocess.run([*command, "--prompt", "Once upon a time"], capture_output=True, text=True, check=False)
    assert (right.returncode, bool(right.stdout.strip())) == (0, True), right.stderr
    wrong = subprocess.run(
        [*command, "--prompt", "Once", "--max-tokens", "-1"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("InvalidRequestError: ")


def test_the_application_is_the_image_that_was_built() -> None:
    built = (ROOT / ".aws-sam" / "build" / "template.yaml").read_text()
    assert f"ImageUri: {IMAGE}" in built


TRANSFORM = """
import json, sys
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

template = yaml_parse(sys.stdin.read())
for name in ("CausalLM", "ManagedCausalLM"):
    template["Resources"][name]["Properties"]["ImageUri"] = "123456789012.dkr.ecr.us-east-1.amazonaws.com/r:tag"
print(json.dumps(Translator({}, Parser()).translate(template, parameter_values={"AWS::Region": "us-east-1"})))
"""


def test_sam_gives_each_version_the_description_that_publishes_it() -> None:
    """The transform that AWS runs on the template; the versions are what `live` stands for."""
    done = subprocess.run(
        [str(SAM.with_name("python")), "-c", TRANSFORM],
        input=(ROOT / "template.yaml").read_text(),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    resources = json.loads(done.stdout)["Resources"].values()
    versions = [resource["Properties"] for resource in resources if resource["Type"] == "AWS::Lambda::Version"]
    assert len(versions) == 2
    assert all(version["Description"] == {"Ref": "FunctionPolicy"} for version in versions)
