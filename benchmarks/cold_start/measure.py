"""One cold start: start the emulator and the function, ask for one token, read what it cost, stop everything."""

import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cold_start.observe import (
    TOKEN,
    count_opened,
    cpu_quota,
    drop_page_cache,
    find_process,
    read_costs,
    tracer,
)
from benchmarks.variants import Variant
from tools.emulator import RUNTIME_CLIENT, Emulator

MB_PER_VCPU = 1769
EVENT = {"prompt": "The first token of a cold start", "max_tokens": 1, "temperature": 0}
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

    @property
    def vcpus(self) -> float | None:
        """CPUs granted."""
        return None if self.memory_mb is None else self.memory_mb / MB_PER_VCPU


def _environment(variant: Variant, condition: Condition, token: str) -> dict[str, str]:
    memory = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(condition.memory_mb)} if condition.memory_mb else {}
    return {
        "MODEL_DIR": str(variant.directory),
        "HF_HUB_OFFLINE": "1",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(LONGEST_S),
        "AWS_XRAY_SDK_ENABLED": "false",
        TOKEN: token,
        **memory,
        **variant.environment,
    }


def cold_start(variant: Variant, condition: Condition) -> dict[str, Any]:
    """Times in seconds and costs in bytes of one cold start with its first token. Raises ColdStartFailedError."""
    token = uuid.uuid4().hex
    with cpu_quota(condition.vcpus):
        if condition.cache == "cold":
            drop_page_cache()
        with Emulator(_environment(variant, condition, token)) as emulator:
            reply = emulator.invoke(EVENT, timeout=LONGEST_S)
            process = find_process(token)
            costs = read_costs(process) if process else {}
            init_s = emulator.init_seconds
    answered = reply.status == 200 and isinstance(reply.payload, dict) and "timings" in reply.payload
    if not answered:
        raise ColdStartFailedError(f"{variant.name}: {str(reply.payload)[:300]}")
    timings = reply.payload["timings"]
    return {
        "to_first_answer_s": reply.seconds,
        "init_s": init_s,
        "first_request_s": timings["total_ms"] / 1000,
        "phases_s": {name.removesuffix("_ms"): ms / 1000 for name, ms in timings["init"].items()},
        **costs,
    }


def files_opened(variant: Variant) -> int:
    """Different files that a cold start with its first token opens. Traced, so its times mean nothing."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "trace")
        environment = _environment(variant, Condition(None, "warm"), uuid.uuid4().hex)
        with Emulator(environment, [*tracer(output), *RUNTIME_CLIENT]) as emulator:
            reply = emulator.invoke(EVENT, timeout=LONGEST_S)
        if reply.status != 200:
            raise ColdStartFailedError(f"{variant.name}: {str(reply.payload)[:300]}")
        return count_opened(output.read_text(errors="replace"))
