"""One cold start: start the emulator and the function, ask for one token, read what it cost, stop everything."""

import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cold_start.container import Container, ContainerFailedError
from benchmarks.cold_start.observe import (
    TOKEN,
    cpu_quota,
    drop_page_cache,
    find_process,
    opened_in,
    read_costs,
    tracer,
)
from benchmarks.variants import Variant
from engines.machine import MB_PER_VCPU
from tools.emulator import RUNTIME_CLIENT, Emulator, EmulatorError

PROMPT = "The first token of a cold start"
LONGEST_S = 300


class ColdStartFailedError(Exception):
    """The function did not come up or did not answer; the message says what it said."""


@dataclass(frozen=True)
class Condition:
    """What a cold start is measured under."""

    memory_mb: int | None
    """CPU time as Lambda gives it to this memory size; None for the whole machine."""
    cache: str
    """`warm` page cache, or `cold`."""

    def of(self, name: str) -> str:
        """What a variant is called under this condition."""
        return f"{name}, {f'{self.memory_mb:,} MB' if self.memory_mb else 'all CPUs'}, {self.cache} cache"

    @property
    def vcpus(self) -> float | None:
        """CPUs granted."""
        return None if self.memory_mb is None else self.memory_mb / MB_PER_VCPU


def _environment(variant: Variant, condition: Condition, token: str) -> dict[str, str]:
    memory = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(condition.memory_mb)} if condition.memory_mb else {}
    return {
        "HF_HUB_OFFLINE": "1",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(LONGEST_S),
        "AWS_XRAY_SDK_ENABLED": "false",
        TOKEN: token,
        **memory,
        **variant.environment,
    }


def _event(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 1, "temperature": 0}


def cold_start(variant: Variant, condition: Condition, prompt: str = PROMPT) -> dict[str, Any]:
    """Times in seconds and costs in bytes of one cold start with the first token after `prompt`.

    Raises ColdStartFailedError.
    """
    token = uuid.uuid4().hex
    try:
        if variant.image:
            seconds, answer, costs = _in_container(variant, condition, token, prompt)
        else:
            seconds, answer, costs = _in_emulator(variant, condition, token, prompt)
    except (EmulatorError, ContainerFailedError) as error:
        raise ColdStartFailedError(str(error)) from None
    if not (isinstance(answer, dict) and "timings" in answer):
        raise ColdStartFailedError(_said(answer))
    timings, usage = answer["timings"], answer["usage"]
    return {
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "to_first_answer_s": seconds,
        "first_request_s": timings["total_ms"] / 1000,
        "phases_s": {name.removesuffix("_ms"): ms / 1000 for name, ms in timings["init"].items()},
        **costs,
    }


def _said(answer: Any) -> str:
    """What went wrong, in the words of the function's error where it is one."""
    text = str(answer.get("errorMessage", answer) if isinstance(answer, dict) else answer)
    return text.replace(f"{Path.cwd()}/", "")[:300]


def _in_emulator(
    variant: Variant, condition: Condition, token: str, prompt: str
) -> tuple[float, Any, dict[str, float]]:
    environment = {"MODEL_DIR": str(variant.directory), **_environment(variant, condition, token)}
    with cpu_quota(condition.vcpus):
        if condition.cache == "cold":
            drop_page_cache()
        with Emulator(environment) as emulator:
            reply = emulator.invoke(_event(prompt), timeout=LONGEST_S)
            process = find_process(token)
            costs: dict[str, float] = dict(read_costs(process)) if process else {}
            if emulator.init_seconds is not None:
                costs["init_s"] = emulator.init_seconds
    return reply.seconds, reply.payload, costs


def _in_container(
    variant: Variant, condition: Condition, token: str, prompt: str
) -> tuple[float, Any, dict[str, float]]:
    environment = _environment(variant, condition, token)
    with Container(variant.image, environment, condition.vcpus, condition.memory_mb) as container:
        if condition.cache == "cold":
            drop_page_cache()
        seconds, answer = container.invoke(_event(prompt), LONGEST_S)
        process = find_process(token)
        return seconds, answer, dict(read_costs(process)) if process else {}


def files_opened(variant: Variant, prompt: str = PROMPT) -> set[str]:
    """The files that a cold start with the first token after `prompt` opens.

    Traced, so its times mean nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "trace")
        environment = _environment(variant, Condition(None, "warm"), uuid.uuid4().hex)
        if variant.image:
            _trace_container(variant.image, environment, output, prompt)
        else:
            environment["MODEL_DIR"] = str(variant.directory)
            with Emulator(environment, [*tracer(output), *RUNTIME_CLIENT]) as emulator:
                reply = emulator.invoke(_event(prompt), timeout=LONGEST_S)
            if reply.status != 200:
                raise ColdStartFailedError(_said(reply.payload))
        return opened_in(output.read_text(errors="replace"))


def import_output(variant: Variant, prompt: str = PROMPT) -> tuple[str, ...]:
    """What a cold start under `python -X importtime` writes; nothing for an image, whose command is its own."""
    if variant.image:
        return ()
    environment = _environment(variant, Condition(None, "warm"), uuid.uuid4().hex)
    environment["MODEL_DIR"] = str(variant.directory)
    with Emulator(environment, [RUNTIME_CLIENT[0], "-X", "importtime", *RUNTIME_CLIENT[1:]]) as emulator:
        return emulator.invoke(_event(prompt), timeout=LONGEST_S).output


def _trace_container(image: str, environment: dict[str, str], output: Path, prompt: str) -> None:
    """Follow the emulator in a new container, and so the function that it starts for the first event."""
    try:
        with Container(image, environment, None, None) as container:
            command = [*tracer(output), "-p", str(container.process())]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as trace:
                _wait_until_traced(container.process(), trace)
                container.invoke(_event(prompt), LONGEST_S)
                trace.terminate()
    except ContainerFailedError as error:
        raise ColdStartFailedError(str(error)) from None


def _wait_until_traced(process: int, trace: "subprocess.Popen[bytes]") -> None:
    """Return once the kernel says that the process has a tracer, or the tracer has ended."""
    while "TracerPid:\t0\n" in Path(f"/proc/{process}/status").read_text() and trace.poll() is None:
        time.sleep(0.01)
