"""API keys from the environment, from a Secrets Manager secret or from an SSM parameter.

boto3 is imported only where a secret or a parameter is named. No message holds anything of a secret's value.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from api.keys import ApiKeys
from engines.errors import LoadError
from settings import Settings

CONNECT_SECONDS = 1
READ_SECONDS = 2
ATTEMPTS = 2
"""All together well under the 10 s that Lambda gives a function after a restore (AWS docs, snapstart-runtime-hooks)."""


def make_keys(settings: Settings) -> ApiKeys | None:
    """The keys that clients need, None where none are set up. Raises LoadError when they cannot be read."""
    if settings.api_keys_secret and settings.api_keys_parameter:
        raise LoadError("API_KEYS_SECRET and API_KEYS_PARAMETER are both set; name one of them.")
    if settings.api_keys_secret:
        fetch = partial(_fetch, _secret, "secret", settings.api_keys_secret)
    elif settings.api_keys_parameter:
        fetch = partial(_fetch, _parameter, "parameter", settings.api_keys_parameter)
    else:
        return ApiKeys(settings.api_keys) if settings.api_keys else None
    return ApiKeys(settings.api_keys, fetch, max_age=settings.api_keys_max_age)


def parse_keys(text: str) -> list[str]:
    """Keys in a secret's value: JSON (an object's values, a list, or one string), or text split at commas and space."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text.replace(",", " ").split()
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        value = [value if isinstance(value, str) else text.strip()]
    if not all(isinstance(key, str) for key in value):
        return []
    return [key.strip() for key in value if key.strip()]


def _fetch(read: Callable[[str], str], kind: str, name: str) -> list[str]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        text = read(name)
    except ClientError as error:
        reason = error.response.get("Error", {}).get("Code", "refused")
    except BotoCoreError as error:
        reason = type(error).__name__
    else:
        keys = parse_keys(text)
        if keys:
            return keys
        reason = "it holds no keys"
    raise LoadError(
        f"The API keys cannot be read from the {kind} {name!r} ({reason}); "
        f"check its name, its value and the function's permissions."
    )


def _secret(name: str) -> str:
    value = _client("secretsmanager").get_secret_value(SecretId=name)
    return str(value.get("SecretString") or "")


def _parameter(name: str) -> str:
    return str(_client("ssm").get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


def _client(service: Literal["secretsmanager", "ssm"]) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"total_max_attempts": ATTEMPTS}
    )
    return boto3.session.Session().client(service, config=config)
