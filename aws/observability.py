"""Logs, metrics and traces in Lambda, through Powertools. The names are those of the response's `timings` and `usage`.

Prompts and completions appear in the log only where a setting says so. The Tracer is built only where tracing is on:
its imports (X-Ray SDK, botocore) cost a cold start more than all other imports of the handler together.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from aws_lambda_powertools import Logger, Metrics, single_metric
from aws_lambda_powertools.metrics import MetricUnit

from api.errors import ApiError
from api.model import Model
from api.response_types import Timings, Usage

SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "causal-lm")
NAMESPACE = os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "CausalLM")

logger = Logger(service=SERVICE)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)


def record_load(model: Model) -> None:
    """Once per cold start: one log line and one set of metrics with the phases of the load."""
    engine = model.engine
    logger.info(
        "model loaded",
        model=model.name,
        revision=model.revision,
        engine=engine.name,
        dtype=engine.dtype,
        device=engine.device,
        load=model.load_ms,
    )
    for phase, value in model.load_ms.items():
        metrics.add_metric(f"cold_start_{phase}", MetricUnit.Milliseconds, value)
    metrics.flush_metrics()


def record_restore() -> None:
    """Once per restore from a SnapStart snapshot, in which no phase of the load ran again."""
    logger.info("restored from a snapshot")
    metrics.add_metric("restores", MetricUnit.Count, 1)
    metrics.flush_metrics()


def record_generation(usage: Usage, timings: Timings) -> None:
    """Once per generation: its usage and timings, logged and as metrics."""
    logger.info("tokens generated", usage=usage, timings=timings)
    metrics.add_metric("prompt_tokens", MetricUnit.Count, usage["prompt_tokens"])
    metrics.add_metric("completion_tokens", MetricUnit.Count, usage["completion_tokens"])
    metrics.add_metric("cached_tokens", MetricUnit.Count, timings["cached_tokens"])
    details = usage["completion_tokens_details"]
    metrics.add_metric("accepted_prediction_tokens", MetricUnit.Count, details["accepted_prediction_tokens"])
    metrics.add_metric("rejected_prediction_tokens", MetricUnit.Count, details["rejected_prediction_tokens"])
    for name in ("queue_ms", "prefill_ms", "decode_ms", "total_ms"):
        metrics.add_metric(name, MetricUnit.Milliseconds, timings[name])
    if timings["time_to_first_token_ms"] is not None:
        metrics.add_metric("time_to_first_token_ms", MetricUnit.Milliseconds, timings["time_to_first_token_ms"])
    if timings["tokens_per_second"] is not None:
        metrics.add_metric("tokens_per_second", MetricUnit.CountPerSecond, timings["tokens_per_second"])
    metrics.flush_metrics()


def record_error(error: ApiError) -> None:
    """Once per refused or failed request, by the error's type, with the sentence that quotes nothing of the request."""
    kind = type(error).__name__
    outcome = "request refused" if error.status < 500 else "request failed"
    logger.warning(outcome, error=kind, status=error.status, reason=str(error), code=error.code)
    with single_metric("errors", MetricUnit.Count, 1, namespace=NAMESPACE) as metric:
        metric.add_dimension("service", SERVICE)
        metric.add_dimension("error_type", kind)


def make_tracer(enabled: bool) -> Callable[[str], AbstractContextManager[object]]:
    """A function that opens a named X-Ray subsegment, or does nothing where tracing is off."""
    if not enabled:
        return lambda name: nullcontext()
    from aws_lambda_powertools import Tracer

    tracer = Tracer(service=SERVICE, auto_patch=False)

    @contextmanager
    def subsegment(name: str) -> Iterator[object]:
        with tracer.provider.in_subsegment(name=f"## {name}") as segment:
            yield segment

    return subsegment
