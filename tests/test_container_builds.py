"""Every image that the documents offer: built, started as Lambda would, asked cold and warm; size and speed printed.

`make image` builds the first, with nothing changed; it is used by the other container tests too.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig

from tests.aws_server import serving_aws
from tests.checkpoints import VOCAB, write_tokenizer
from tests.containers import IMAGE, ROOT, build, function, host_address, size, started
from tests.hub import COMMIT, serving_hub

pytestmark = pytest.mark.container
DIRECT = json.loads((ROOT / "events" / "direct.json").read_text())
DEMO = ROOT / "models" / "demo"
BUCKET = "models"
Report = Callable[[str], None]


BUILDS = {
    "compiled-int8": (("ENGINE=compiled",), ("compiled", "int8")),
    "compiled-int4": (("ENGINE=compiled", "QUANTIZE=int4", "CONTEXT_LENGTH=256"), ("compiled", "int4")),
    "compiled-auto": (("ENGINE=compiled", "QUANTIZE=auto", "QUALITY_BOUND=50"), ("compiled", "int4")),
    "compiled-none": (("ENGINE=compiled", "QUANTIZE=none"), ("compiled", "float32")),
    "transformers": (("ENGINE=transformers",), ("transformers", "float32")),
}
"""Build arguments; engine and precision that serve the demo model then."""


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Print a line for whoever reads the log of a run that went well."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")

    return line


def use(image: str, serves: tuple[str, str], report: Report, *options: str, network: str = "none") -> None:
    """A cold and a warm request to the image as a function; says its size and how long they took."""
    with function(*options, image=image, network=network) as container:
        cold_s, cold = container.invoke_timed(DIRECT)
        warm_s, warm = container.invoke_timed(DIRECT)
        log = container.log()
    assert cold["choices"][0]["text"].strip()
    assert cold["choices"] == warm["choices"]
    assert (cold["timings"]["cold_start"], warm["timings"]["cold_start"]) == (True, False)
    (loaded,) = (json.loads(line) for line in log.splitlines() if '"model loaded"' in line)
    assert (loaded["engine"], loaded["dtype"]) == serves
    report(
        f"{image}: {size(image) / 1e6:,.0f} MB; {cold['usage']['completion_tokens']} tokens of {' '.join(serves)} took "
        f"{1000 * cold_s:,.0f} ms cold ({cold['timings']['init']['total_ms']:,.0f} ms of it until ready), "
        f"{1000 * warm_s:,.0f} ms warm"
    )


def built(name: str, arguments: tuple[str, ...]) -> tuple[str, str]:
    """An image's tag and what its build printed."""
    tag = f"{IMAGE.partition(':')[0]}:{name}"
    result = build(arguments, tag)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return tag, result.stdout


def test_with_nothing_changed_the_demo_is_compiled(report: Report) -> None:
    use(IMAGE, ("compiled", "int8"), report)


def test_a_prompt_that_was_read_in_the_build_is_found_by_the_first_request(report: Report) -> None:
    tag, _ = built("prompt", ("PROMPTS=prompts/demo.json",))
    messages = json.loads((ROOT / "prompts" / "demo.json").read_text())["messages"]
    asked = {"messages": [*messages, {"role": "user", "content": "Tell me one about a bear."}], "max_tokens": 20}
    with function(image=tag) as container:
        (stored,) = json.loads(container.run("cat", "/opt/model/manifest.json"))["prompts"]["tokens"]
        cold_s, cold = container.invoke_timed(asked)
    assert cold["usage"]["prompt_tokens_details"]["cached_tokens"] == len(stored)
    prompt_tokens = cold["usage"]["prompt_tokens"]
    report(f"{tag}: {len(stored)} of {prompt_tokens} tokens had been read; {1000 * cold_s:,.0f} ms cold")


@pytest.mark.parametrize("name", BUILDS)
def test_an_engine_and_a_precision(name: str, report: Report) -> None:
    arguments, serves = BUILDS[name]
    tag, _ = built(name, arguments)
    use(tag, serves, report)


def bloom_files(directory: Path) -> Mapping[str, bytes]:
    """A checkpoint whose attention the compiler does not know."""
    config = BloomConfig(vocab_size=VOCAB, hidden_size=64, n_layer=2, n_head=4, eos_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)  # type: ignore[no-untyped-call]
    write_tokenizer(directory)
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def from_the_hub(name: str, files: Mapping[str, bytes]) -> tuple[str, str]:
    """The image of a hub id's model, with nothing else changed, and what its build printed."""
    with serving_hub(files, host_address()) as (url, _):
        return built(name, ("MODEL=team/demo", f"MODEL_REVISION={COMMIT}", f"HF_ENDPOINT={url}"))


def test_a_model_from_the_hub_is_compiled(report: Report) -> None:
    tag, printed = from_the_hub("hub", {file.name: file.read_bytes() for file in DEMO.iterdir()})
    assert "The compiled engine serves team/demo (QUANTIZE=int8)." in printed
    use(tag, ("compiled", "int8"), report)


def test_a_model_from_the_hub_that_does_not_compile_is_served_by_transformers(report: Report, tmp_path: Path) -> None:
    tag, printed = from_the_hub("hub-fallback", bloom_files(tmp_path))
    assert "transformers serves team/demo, which cannot be compiled: Bloom" in printed
    use(tag, ("transformers", "float32"), report)


@pytest.fixture
def bucket() -> Iterator[tuple[str, Any]]:
    """An empty bucket that containers reach: the server's address and a client for it."""
    with serving_aws(host_address()) as url:
        client: Any = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_bucket(Bucket=BUCKET)
        yield url, client
        client.close()


def upload(client: Any, directory: Path, prefix: str) -> None:
    for file in directory.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(directory)}")


def from_s3(url: str, prefix: str) -> tuple[str, ...]:
    """Options of `docker run` for a model in the bucket."""
    variables = {
        "MODEL_DIR": f"s3://{BUCKET}/{prefix}",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return tuple(part for name, value in variables.items() for part in ("--env", f"{name}={value}"))


def artifact_of(image: str, directory: Path) -> Path:
    """The compiled model that an image holds."""
    with started(["--entrypoint", "sleep"], ["600"], image) as container:
        copy = ["docker", "cp", f"{container.identity}:/opt/model", str(directory / "artifact")]
        subprocess.run(copy, check=True, capture_output=True)
    return directory / "artifact"


def test_an_image_without_a_model_serves_a_checkpoint_or_an_artifact_from_s3(
    bucket: tuple[str, Any], report: Report, tmp_path: Path
) -> None:
    url, client = bucket
    upload(client, DEMO, "checkpoint")
    upload(client, artifact_of(IMAGE, tmp_path), "artifact")
    any_model, _ = built("none", ("MODEL=none",))
    use(any_model, ("transformers", "float32"), report, *from_s3(url, "checkpoint"), network="bridge")
    use(any_model, ("compiled", "int8"), report, *from_s3(url, "artifact"), network="bridge")
    artifacts_only, _ = built("none-compiled", ("MODEL=none", "ENGINE=compiled"))
    assert size(artifacts_only) < size(any_model) / 2
    use(artifacts_only, ("compiled", "int8"), report, *from_s3(url, "artifact"), network="bridge")
