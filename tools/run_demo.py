"""`make run`: the function under Lambda's runtime client and emulator, sent every sample event, for a person to see.

Prints the cold start's phases, each answer, how long the first and the later invocations took, and what a load per
request would cost. Takes the same environment variables as the function does. Knows nothing of models; what it shows
is what the function answered.
"""

import argparse
import base64
import contextlib
import json
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tools.emulator import ROOT, Emulator, EmulatorError, Reply
from tools.screen import Screen

CALLERS: Mapping[str, str] = {
    "direct": "direct invoke",
    "direct-chat": "direct invoke",
    "json-schema": "direct invoke",
    "tool-call": "direct invoke",
    "rest-api": "API Gateway REST API",
    "http-api": "API Gateway HTTP API",
    "function-url": "Function URL",
    "alb": "load balancer",
    "alb-multi-value": "load balancer",
    "schedule": "EventBridge schedule",
}
"""The sample events in the order they are sent; the first one meets the cold start."""
WARM_REPEATS = 5
"""How often the first event is sent again, for latencies of the very same request."""
FAILURES = frozenset({"InternalError", "ServiceUnavailableError"})
"""Function errors that are not the request's fault."""
INVOCATION_SECONDS = 300.0
COMPARISON_SECONDS = 600.0

PHASES: Mapping[str, str] = {
    "start_ms": "Python and runtime client",
    "app_imports_ms": "imports of the handler",
    "imports_ms": "imports of the engine",
    "weights_ms": "weights",
    "tokenizer_ms": "tokenizer",
    "warm_up_ms": "warm-up",
}


class DemoError(Exception):
    """Something did not work. The message is for a person."""


def main() -> int:
    """Run the demo; 0 when every event was answered."""
    signal.signal(signal.SIGTERM, _stop)
    sys.stdout.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    screen = Screen.of_stdout()
    try:
        demo(screen)
    except (DemoError, EmulatorError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def demo(screen: Screen) -> None:
    """Send the events and show what happened. Raises DemoError or EmulatorError."""
    events = {name: json.loads((ROOT / "events" / f"{name}.json").read_bytes()) for name in CALLERS}
    cold_event = next(iter(CALLERS))
    print("Starting the function under Lambda's runtime client and emulator ...")
    with Emulator({}) as emulator:
        first = invoke(emulator, cold_event, events[cold_event])
        _show_cold_start(screen, first, emulator.init_seconds)
        screen.heading("Answers")
        _show_answer(screen, cold_event, events[cold_event], first)
        for name, event in events.items():
            if name != cold_event:
                _show_answer(screen, name, event, invoke(emulator, name, event))
        later = [invoke(emulator, cold_event, events[cold_event]).seconds for _ in range(WARM_REPEATS)]
    _show_latency(screen, cold_event, first.seconds, later)
    _show_comparison(screen, cold_event, _compare_loads())


def invoke(emulator: Emulator, name: str, event: Any) -> Reply:
    """One invocation; DemoError when the function failed. A refusal (4xx) is an answer."""
    reply = emulator.invoke(event, timeout=INVOCATION_SECONDS)
    payload = reply.payload
    if not isinstance(payload, dict):
        raise DemoError(f"events/{name}.json: {payload or f'the function process ended (status {reply.status})'}")
    if payload.get("errorType") == "LoadError":
        raise DemoError(f"The function cannot start. {payload['errorMessage']}")
    if reply.status != 200 or int(payload.get("statusCode", 200)) >= 500 or payload.get("errorType") in FAILURES:
        raise DemoError(f"events/{name}.json failed: {_refusal(payload) or payload.get('errorMessage') or payload}")
    return reply


def body_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON in an HTTP response, or the payload itself."""
    body = payload.get("body")
    return dict(json.loads(body)) if isinstance(body, str) else dict(payload)


def _refusal(payload: Mapping[str, Any]) -> str | None:
    """The sentence of an error, None for an answer."""
    if "errorType" in payload:
        return str(payload.get("errorMessage"))
    error = body_of(payload).get("error")
    return str(error["message"]) if isinstance(error, dict) else None


def _request(event: Mapping[str, Any]) -> str:
    """What an event asks for: its prompt or its last message; empty for a ping."""
    body = event.get("body")
    if isinstance(body, str):
        event = json.loads(base64.b64decode(body) if event.get("isBase64Encoded") else body)
    if "messages" in event:
        return str(event["messages"][-1]["content"])
    return f"{event['prompt']} ..." if "prompt" in event else ""


def _show_cold_start(screen: Screen, first: Reply, init_seconds: float | None) -> None:
    body = body_of(first.payload)
    loaded = next((line for line in first.log if line.get("message") == "model loaded"), {})
    facts = ", ".join(str(loaded[name]) for name in ("engine", "dtype", "device") if name in loaded)
    init: Mapping[str, float] = body.get("timings", {}).get("init") or loaded.get("load") or {}
    screen.heading(f"Cold start of {loaded.get('model', 'the model')} ({facts})")
    rows = [(PHASES.get(name, name), ms, "") for name, ms in init.items() if name != "total_ms"]
    if rows:
        rows.append(("until ready", init["total_ms"], ""))
        screen.bars(rows)
    if init_seconds is not None:
        screen.aside(f"The emulator measured an init phase of {1000 * init_seconds:,.1f} ms.")


def _show_answer(screen: Screen, name: str, event: Mapping[str, Any], reply: Reply) -> None:
    body = body_of(reply.payload)
    refusal = _refusal(reply.payload)
    tokens = body.get("usage", {}).get("completion_tokens")
    figures = f"{f'{tokens} tokens' if tokens else ''} {1000 * reply.seconds:>9,.1f} ms"
    title = f"events/{name}.json, {CALLERS[name]}"
    print(f"\n  {title:<{screen.width - len(figures) - 3}} {figures}")
    asked = _request(event)
    if asked:
        screen.aside(f"> {asked}")
    if refusal is not None:
        screen.text(f"Refused: {refusal}")
    elif "choices" in body:
        screen.text(said(body["choices"][0]))
    else:
        screen.text(json.dumps(body))


def said(choice: Mapping[str, Any]) -> str:
    """A choice's text, and the functions that it calls."""
    if "message" not in choice:
        return str(choice["text"])
    functions = (call["function"] for call in choice["message"].get("tool_calls") or [])
    calls = [f"Calls {function['name']} with {function['arguments']}" for function in functions]
    return "\n".join(filter(None, [choice["message"]["content"], *calls]))


def _show_latency(screen: Screen, name: str, first: float, later: Sequence[float]) -> None:
    usual = statistics.median(later)
    screen.heading(f"First and later invocations of the same request (events/{name}.json)")
    spread = f"median of {len(later)}: {1000 * min(later):,.1f} to {1000 * max(later):,.1f}"
    screen.bars([("first", 1000 * first, ""), ("later", 1000 * usual, spread)])
    screen.aside(f"The first took {first / usual:.1f} times as long: the init phase above is part of it.")


def _compare_loads() -> dict[str, float]:
    """Load-once against a load per request, measured in a process of its own: see `tools/load_per_request.py`."""
    command = [sys.executable, "-m", "tools.load_per_request"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=COMPARISON_SECONDS)
    except subprocess.TimeoutExpired:
        raise DemoError(f"Loading the model per request took over {COMPARISON_SECONDS:.0f} s.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DemoError(f"Loading the model per request failed: {reason}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _show_comparison(screen: Screen, name: str, measured: Mapping[str, float]) -> None:
    screen.heading(f"The same request (events/{name}.json) in one warm process, no emulator")
    rows = {"first token": "_first_token_ms", "whole answer": "_ms"}
    ways = {"loaded once": "loaded_once", "loaded per request": "loaded_per_request"}
    screen.bars([(f"{row}, {way}", measured[ways[way] + rows[row]], "") for row in rows for way in ways])
    token, whole = (measured[f"loaded_per_request{row}"] / measured[f"loaded_once{row}"] for row in rows.values())
    screen.aside(
        f"A load per request takes {token:.1f} times as long to the first token and {whole:.1f} times as long to the "
        f"last: it adds {measured['load_ms']:,.1f} ms (medians of {measured['rounds']:.0f}, in turns). The libraries "
        f"were imported once for both, so this is the least that load-once saves."
    )


def _stop(*_: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
