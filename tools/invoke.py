"""Invoke the function directly, deployed or local, and show the text and where the time went.

    python -m tools.invoke my-stack-CausalLM-abc:live --prompt "Once upon a time"
    python -m tools.invoke my-stack-CausalLM-abc:live --prompt "Once upon a time" --stream
    python -m tools.invoke CausalLM --endpoint-url http://127.0.0.1:3001 --chat "Tell me a story." --max-tokens 200
    python -m tools.invoke CausalLM --endpoint-url http://127.0.0.1:3001 --event events/direct.json

Exit status: 0 for an answer (or an accepted event), 1 for an error of the function, 2 when it could not be invoked.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tools.run_demo import said

PAYLOAD_LIMIT = {"RequestResponse": 6_291_456, "Event": 1_048_576}
"""Bytes Lambda takes, by invocation type."""


class InvokeError(Exception):
    """The function could not be invoked. The message says why."""


def read_event(options: argparse.Namespace) -> Any:
    """The event the command line describes. Raises InvokeError."""
    if options.event is None:
        event: dict[str, Any] = {"max_tokens": options.max_tokens}
        if options.prompt is not None:
            return {**event, "prompt": options.prompt}
        return {**event, "messages": [{"role": "user", "content": options.chat}]}
    try:
        event = json.loads(options.event.read_bytes())
    except OSError as error:
        raise InvokeError(f"{options.event} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvokeError(f"{options.event} is not JSON: {error}.") from error
    if options.stream and not isinstance(event, dict):
        raise InvokeError(f"{options.event} is no JSON object, and only a request can be streamed.")
    return event


def invoke(options: argparse.Namespace) -> int:
    """Invoke, print, and return the exit status. Raises InvokeError."""
    event = read_event(options)
    if options.stream:
        event |= {"stream": True, "stream_options": {"include_usage": True}}
    payload = json.dumps(event).encode()
    kind = "Event" if options.asynchronous else "RequestResponse"
    if len(payload) > PAYLOAD_LIMIT[kind]:
        raise InvokeError(f"The event has {len(payload):,} bytes; Lambda takes {PAYLOAD_LIMIT[kind]:,} this way.")
    local = {"signature_version": UNSIGNED, "region_name": "local"} if options.endpoint_url else {}
    try:
        client = boto3.client(
            "lambda",
            endpoint_url=options.endpoint_url,
            config=Config(read_timeout=910, retries={"total_max_attempts": 1}, **local),
        )
    except (BotoCoreError, ValueError) as error:  # no region, an endpoint that is no URL
        raise InvokeError(str(error)) from error
    if options.stream:
        return stream(client, options.function, payload)
    started = time.monotonic()
    try:
        answer = client.invoke(FunctionName=options.function, InvocationType=kind, Payload=payload)
        body = answer["Payload"].read()
    except (BotoCoreError, ClientError) as error:
        raise InvokeError(str(error)) from error
    finally:
        client.close()
    seconds = time.monotonic() - started
    if options.asynchronous:
        print(f"accepted in {seconds:.2f} s; the answer goes to the results queue")
        return 0
    result = parsed(body)
    if "FunctionError" in answer or (isinstance(result, dict) and "errorMessage" in result):  # `sam local` sets none
        print(failure(result), file=sys.stderr)
        return 1
    show(result, seconds)
    return 0


def parsed(body: bytes) -> Any:
    """The function's answer. Raises InvokeError where it is no JSON."""
    try:
        return json.loads(body)
    except ValueError:
        raise InvokeError(f"The function answered what is no JSON: {body[:200].decode(errors='replace')!r}.") from None


def failure(result: Any) -> str:
    """What an answer that is an error says."""
    if not isinstance(result, dict):
        result = {}
    return f"{result.get('errorType', 'Error')}: {result.get('errorMessage', 'the function gave no reason')}"


def stream(client: Any, function: str, payload: bytes) -> int:
    """Print the text of an answer while it arrives; the exit status. Raises InvokeError."""
    started = time.monotonic()
    received = b""
    try:
        answer = client.invoke_with_response_stream(FunctionName=function, Payload=payload)
        for event in answer["EventStream"]:
            received += event.get("PayloadChunk", {}).get("Payload", b"")
            *lines, received = received.split(b"\n\n")
            for data in (line.removeprefix(b"data: ") for line in lines):
                if data != b"[DONE]":
                    show_part(parsed(data), started)
            failed = event.get("InvokeComplete", {})
            if "ErrorCode" in failed:
                print(f"{failed['ErrorCode']}: {failed.get('ErrorDetails', '')}", file=sys.stderr)
                return 1
    except (BotoCoreError, ClientError) as error:
        raise InvokeError(str(error)) from error
    finally:
        client.close()
    if not received.strip():
        return 0
    result = parsed(received)  # one answer, whole: no stream
    if isinstance(result, dict) and "errorMessage" in result:
        print(failure(result), file=sys.stderr)
        return 1
    show(result, time.monotonic() - started)
    return 0


def show_part(part: Any, started: float) -> None:
    """Print one event of a stream: text as it is, the last one's figures to standard error. Raises InvokeError."""
    if not isinstance(part, dict):
        raise InvokeError(f"The function streamed what is no part of an answer: {part!r}.")
    for choice in part.get("choices", []):
        print(part_said(choice), end="", flush=True)
    if part.get("usage"):
        print()
        show({**part, "choices": []}, time.monotonic() - started)


def part_said(choice: Mapping[str, Any]) -> str:
    """The text of a part of a choice, and of the functions that it calls."""
    if "text" in choice:
        return str(choice["text"])
    functions = (call["function"] for call in choice["delta"].get("tool_calls") or [])
    calls = (
        (f"Calls {function['name']} with " if function.get("name") else "") + (function.get("arguments") or "")
        for function in functions
    )
    return (choice["delta"].get("content") or "") + "".join(calls)


def show(result: Any, seconds: float) -> None:
    """Print the text of a completion, then a line of figures; anything else as it is."""
    if not isinstance(result, dict) or not {"choices", "usage"} <= result.keys():
        print(json.dumps(result, indent=2))
        return
    for choice in result["choices"]:
        print(said(choice))
    usage, timings = result["usage"], result.get("timings", {})
    figures = [f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens", f"{seconds:.2f} s round trip"]
    figures += [f"{name} {value:g}" for name, value in timings.items() if isinstance(value, float)]
    print(f"\n[{', '.join(figures)}]", file=sys.stderr)


def main() -> int:
    """Parse the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Invoke the function directly and show text and timings.")
    parser.add_argument("function", help="name or ARN, with :live for the published alias")
    request = parser.add_mutually_exclusive_group(required=True)
    request.add_argument("--prompt", help="text to complete")
    request.add_argument("--chat", help="a user's message")
    request.add_argument("--event", type=Path, help="file with any event")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--endpoint-url", help="of `sam local start-lambda`, for example http://127.0.0.1:3001")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--stream", action="store_true", help="print the text while it is made")
    how.add_argument("--asynchronous", action="store_true", help="do not wait for the answer")
    try:
        return invoke(parser.parse_args())
    except InvokeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
