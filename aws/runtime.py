"""Lambda's runtime client with answers that stream: `python -m aws.runtime handler.lambda_handler`.

awslambdaric sends whole bodies only. Here it runs with clients of our own, which send a StreamedAnswer part by part as
AWS documents it for custom runtimes; everything else goes out as awslambdaric sends it, in the same bytes.

When awslambdaric streams by itself, delete this file, `aws/chunked_post.py`, `aws/streaming.py` and their test. The
handler then returns what that client takes, and where `grep -r aws.runtime` finds this module, name `awslambdaric`.
"""

from startup import deferred  # noqa: F401  before anything that it keeps from being loaded

# isort: split
import logging
import sys
from contextlib import closing
from typing import Any

from awslambdaric import bootstrap  # type: ignore[import-untyped]
from awslambdaric.lambda_config import LambdaConfigProvider  # type: ignore[import-untyped]
from awslambdaric.lambda_runtime_client import (  # type: ignore[import-untyped]
    LambdaMultiConcurrentRuntimeClient,
    LambdaRuntimeClient,
)
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller, to_json  # type: ignore[import-untyped]

from aws.chunked_post import ChunkedPost
from aws.streaming import StreamedAnswer

ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"


class _Marshaller(LambdaMarshaller):  # type: ignore[misc]
    """Values to JSON, a streamed answer as it is; events from JSON."""

    def unmarshal_request(self, request: Any, content_type: str = "application/json") -> Any:
        """The event: JSON whatever the type, which AWS's emulator can have from a caller who named another, or none."""
        return super().unmarshal_request(request)

    def marshal_response(self, response: Any) -> tuple[Any, str]:
        if isinstance(response, StreamedAnswer):
            return response, response.content_type
        body, content_type = super().marshal_response(response)
        return body, content_type


class _Streaming:
    """What our clients add to awslambdaric's. An answer that cannot be delivered is a line in the log, no more."""

    marshaller = _Marshaller()
    lambda_runtime_address: str
    _deadline = 0.0

    def wait_next_invocation(self) -> Any:
        """The next invocation; its deadline is also the last moment at which its answer is sent."""
        invocation = super().wait_next_invocation()  # type: ignore[misc]
        self._deadline = int(invocation.deadline_time_in_ms) / 1000
        return invocation

    def post_invocation_result(
        self, invoke_id: str, result_data: Any, content_type: str = "application/json", invocation_id: str | None = None
    ) -> None:
        """Send an answer. awslambdaric calls this where an exception would end the process."""
        if not isinstance(result_data, StreamedAnswer):
            super().post_invocation_result(invoke_id, result_data, content_type, invocation_id)  # type: ignore[misc]
            return
        try:
            with closing(result_data.parts):
                self._post_stream(invoke_id, result_data, invocation_id)
        except TimeoutError:  # of the socket, or raised before it was asked
            logging.warning("The answer was not delivered whole: the invocation's time is over.")
        except OSError as error:
            logging.warning("The answer was not delivered whole: %s.", error)
        except Exception:
            logging.exception("The answer's generation did not end well.")

    def _post_stream(self, invoke_id: str, answer: StreamedAnswer, invocation_id: str | None) -> None:
        """Raises OSError when the Runtime API does not take all of it before the deadline."""
        headers = {
            "Host": self.lambda_runtime_address,
            "Content-Type": answer.content_type,
            "Lambda-Runtime-Function-Response-Mode": "streaming",
            "Transfer-Encoding": "chunked",
            "Trailer": f"{ERROR_TYPE}, {ERROR_BODY}",
            "Connection": "close",
        }
        if invocation_id:
            headers["Lambda-Runtime-Invocation-Id"] = invocation_id
        path = f"/2018-06-01/runtime/invocation/{invoke_id}/response"
        with ChunkedPost(self.lambda_runtime_address, path, headers, self._deadline) as post:
            trailers = {}
            while True:
                try:
                    part = next(answer.parts)
                except StopIteration:
                    break
                except Exception as error:
                    trailers = _error_trailers(error, invoke_id)
                    break
                post.send(part)
            post.finish(trailers)


class StreamingClient(_Streaming, LambdaRuntimeClient):  # type: ignore[misc]
    """For an environment with one invocation at a time."""

    def handle_exception(self, exc: Exception, func_to_retry: Any = None, use_backoff: bool = False) -> Any:
        """Without a next invocation there is nothing to do; an answer that the Runtime API refused is past mending."""
        if func_to_retry is not None:
            raise exc
        logging.warning("The answer was not delivered: %s.", exc)


class StreamingMultiConcurrentClient(_Streaming, LambdaMultiConcurrentRuntimeClient):  # type: ignore[misc]
    """For one worker of an environment with several invocations at a time."""


def _error_trailers(error: Exception, invoke_id: str) -> dict[str, str]:
    """The trailers that say that the answer is not complete, with the error as awslambdaric words it."""
    from base64 import b64encode

    fault = bootstrap.build_fault_result((type(error), error, error.__traceback__), None)
    body = to_json(fault | {"requestId": invoke_id}).encode()
    return {ERROR_TYPE: f"Function.{type(error).__name__}", ERROR_BODY: b64encode(body).decode()}


def main() -> None:
    """Run the handler named on the command line until the environment ends."""
    config = LambdaConfigProvider(sys.argv)
    if not config.is_multi_concurrent:
        bootstrap.run(config.handler, StreamingClient(config.api_address, config.use_thread_polling))
        return
    from aws.workers import run_workers  # not before it is needed: plain Lambda has no multiprocessing

    run_workers(config, StreamingMultiConcurrentClient)


if __name__ == "__main__":
    main()
