"""Every environment variable the project reads, in one place.

Names, defaults and allowed values; what they do is elsewhere. A test holds the README's table to it.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from engines.errors import LoadError

ROOT = Path(__file__).parent
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Settings(Struct, frozen=True):
    """What a process is told from outside. `from_env` raises LoadError for a value that cannot be used."""

    model_dir: str = str(ROOT / "models" / "demo")
    """MODEL_DIR: checkpoint or artifact directory, or `s3://bucket/prefix` of one."""
    model_name: str = ""
    """MODEL_NAME: the name clients use; the directory's own name when empty."""
    dtype: str = "auto"
    """DTYPE: what the transformers engine computes in; `auto` is the stored dtype where the CPU runs it well."""
    device: str = "auto"
    """DEVICE: `auto` (a GPU where there is one), `cpu` or `cuda`."""
    verify_artifact: bool = False
    """VERIFY_ARTIFACT: compare every file of a compiled artifact with its checksum at start, which reads all of it."""
    threads: int = 0
    """THREADS: compute threads; 0 is one per vCPU the function really has."""
    max_tokens: int = 0
    """MAX_TOKENS: most completion tokens of a choice; a request for more is cut to it; 0 is what the context leaves."""
    max_choices: int = 128
    """MAX_CHOICES: most choices one completion request may ask for, its prompts times `n`."""
    max_body_bytes: int = 1_000_000
    """MAX_BODY_BYTES: largest request body accepted, bytes."""
    gateway_timeout: float = 29.0
    """GATEWAY_TIMEOUT: seconds API Gateway waits for an answer before it gives up on the function."""
    streaming_doors: tuple[str, ...] = ()
    """STREAMING_DOORS: front doors set up to stream, of function-url and rest-api, separated by commas."""
    api_keys: tuple[str, ...] = ()
    """API_KEYS: keys that clients may use, separated by commas; without any source of keys none is asked for."""
    api_keys_secret: str = ""
    """API_KEYS_SECRET: name or ARN of a Secrets Manager secret that holds keys."""
    api_keys_parameter: str = ""
    """API_KEYS_PARAMETER: name of an SSM parameter that holds keys."""
    api_keys_max_age: float = 300.0
    """API_KEYS_MAX_AGE: seconds after which a request has the secret or parameter read again, in the background."""
    prefix_cache: int = 50
    """PREFIX_CACHE: percent of the memory for keys and values that may hold what earlier requests have read."""
    prefix_cache_shared: bool = False
    """PREFIX_CACHE_SHARED: callers with different keys or IAM identities use what the others' requests have read."""
    prompt_lookup_num_tokens: int = 31
    """PROMPT_LOOKUP_NUM_TOKENS: most tokens guessed for a pass where a request does not say; 0 guesses none."""
    page: bool = True
    """PAGE: answer `GET /` with a page for browsers, which says nothing of a deployment."""
    host: str = "127.0.0.1"
    """HOST: server only, `python -m server`: address to listen on; 0.0.0.0 in a container."""
    allowed_hosts: tuple[str, ...] = ()
    """ALLOWED_HOSTS: server only, without keys: names it may be called by beside localhost, separated by commas."""
    signed_only: bool = False
    """SIGNED_ONLY: Lambda only, refuse HTTP requests that their front door has not found signed (`AWS_IAM`)."""
    cors_origins: tuple[str, ...] = ()
    """CORS_ORIGINS: origins whose pages may call it, `https://app.example`, separated by commas; of a server also `*`.

    Of a function's front doors it counts for REST APIs and load balancers: the others are set up for it themselves.
    """
    port: int = 8000
    """PORT: server only, `python -m server`."""
    workers: int = 1
    """WORKERS: server only, `python -m server`: processes, each with a copy of the model."""
    concurrency: int = 16
    """CONCURRENCY: most sequences (a request's choices count one each) that share a forward pass; others wait."""
    queue_length: int = 64
    """QUEUE_LENGTH: server only: requests that may wait for one of them; more are answered 429."""
    request_timeout: float = 120.0
    """REQUEST_TIMEOUT: server only: seconds from a request's arrival to the answer with the text so far."""
    body_timeout: float = 20.0
    """BODY_TIMEOUT: server only: seconds in which a request's body must arrive."""
    drain_timeout: float = 25.0
    """DRAIN_TIMEOUT: server only: seconds that running requests have to finish after SIGTERM."""
    results_queue_url: str = ""
    """RESULTS_QUEUE_URL: SQS queue for the answers to an SQS batch."""
    log_prompts: bool = False
    """LOG_PROMPTS: write prompts and completions to the log."""
    tracing: bool = False
    """TRACING: X-Ray subsegments through Powertools' Tracer, whose imports add some 0.2 s to a cold start."""

    def __repr__(self) -> str:
        return "Settings(...)"  # it holds keys

    @staticmethod
    def from_env(env: Mapping[str, str] = os.environ) -> "Settings":
        """Read the environment. An empty value counts as not set."""
        default = Settings()
        return Settings(
            model_dir=env.get("MODEL_DIR") or default.model_dir,
            model_name=env.get("MODEL_NAME") or default.model_name,
            dtype=_choice(env, "DTYPE", DTYPES),
            device=_choice(env, "DEVICE", ("auto", "cpu", "cuda")),
            verify_artifact=_choice(env, "VERIFY_ARTIFACT", ("false", "true")) == "true",
            threads=_whole(env, "THREADS", default.threads),
            max_tokens=_whole(env, "MAX_TOKENS", default.max_tokens),
            max_choices=_whole(env, "MAX_CHOICES", default.max_choices, least=1),
            max_body_bytes=_whole(env, "MAX_BODY_BYTES", default.max_body_bytes, least=1),
            gateway_timeout=_seconds(env, "GATEWAY_TIMEOUT", default.gateway_timeout),
            streaming_doors=_subset(env, "STREAMING_DOORS", ("function-url", "rest-api")),
            api_keys=_several(env, "API_KEYS"),
            api_keys_secret=env.get("API_KEYS_SECRET") or default.api_keys_secret,
            api_keys_parameter=env.get("API_KEYS_PARAMETER") or default.api_keys_parameter,
            api_keys_max_age=_seconds(env, "API_KEYS_MAX_AGE", default.api_keys_max_age),
            prefix_cache=_whole(env, "PREFIX_CACHE", default.prefix_cache, most=100),
            prefix_cache_shared=_choice(env, "PREFIX_CACHE_SHARED", ("false", "true")) == "true",
            prompt_lookup_num_tokens=_whole(env, "PROMPT_LOOKUP_NUM_TOKENS", default.prompt_lookup_num_tokens, most=31),
            page=_choice(env, "PAGE", ("true", "false")) == "true",
            host=env.get("HOST") or default.host,
            allowed_hosts=tuple(name.lower() for name in _several(env, "ALLOWED_HOSTS")),
            # `sam local` checks no signature, whatever the template says.
            signed_only=_choice(env, "SIGNED_ONLY", ("false", "true")) == "true" and not env.get("AWS_SAM_LOCAL"),
            cors_origins=_several(env, "CORS_ORIGINS"),
            port=_whole(env, "PORT", default.port, most=65_535),
            workers=_whole(env, "WORKERS", default.workers, least=1),
            concurrency=_whole(env, "CONCURRENCY", default.concurrency, least=1),
            queue_length=_whole(env, "QUEUE_LENGTH", default.queue_length),
            request_timeout=_seconds(env, "REQUEST_TIMEOUT", default.request_timeout),
            body_timeout=_seconds(env, "BODY_TIMEOUT", default.body_timeout),
            drain_timeout=_seconds(env, "DRAIN_TIMEOUT", default.drain_timeout),
            results_queue_url=env.get("RESULTS_QUEUE_URL") or default.results_queue_url,
            log_prompts=_choice(env, "LOG_PROMPTS", ("false", "true")) == "true",
            tracing=_choice(env, "TRACING", ("false", "true")) == "true",
        )


def _choice(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    value = env.get(name) or allowed[0]
    if value not in allowed:
        raise LoadError(f"{name} is {value!r}; set it to one of {', '.join(allowed)}.")
    return value


def _several(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())


def _subset(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    values = _several(env, name)
    for value in values:
        if value not in allowed:
            raise LoadError(f"{name} has {value!r}; set it to any of {', '.join(allowed)}, separated by commas.")
    return values


def _whole(env: Mapping[str, str], name: str, default: int, least: int = 0, most: int | None = None) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise LoadError(f"{name} is {text!r}; set it to a whole number {allowed}.")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise LoadError(f"{name} is {text!r}; set it to a positive number of seconds.")
    return value
