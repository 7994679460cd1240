"""Who may call a server without keys: programs, and its own pages; no page of another origin in a browser beside it.

A page anywhere can have the browser post to a server on the same machine, with the content types of forms, and, when
its own name is made to resolve to that machine (DNS rebinding), read the answers too. The first is told by its Origin
or its content type, the second by its Host: a name that is not this server's. An address cannot be rebound.
"""

import ipaddress
from collections.abc import Collection, Mapping

from api.errors import ForbiddenError, InvalidRequestError

LOCAL = "localhost"
TAKEN = ("", "application/json", "application/x-www-form-urlencoded")
"""Content types of a request's body: JSON, and what curl and small programs send where none was named."""


def check_caller(headers: Mapping[str, str], hosts: Collection[str], origins: Collection[str]) -> None:
    """ForbiddenError for a request to a name other than `hosts` and localhost, or from a page of another origin.

    Pages of `origins` may send requests; `*` is none of them, because it would let in every page there is.
    InvalidRequestError for a content type that only a form would have. `headers` by their names in lower case.
    """
    host = headers.get("host", "")
    name = _name(host)
    if not (name in ("", LOCAL) or name.endswith(f".{LOCAL}") or name in hosts or _is_address(name)):
        raise ForbiddenError(
            "Without API keys this server answers to localhost and to addresses only; "
            "start it with keys, or name its host in ALLOWED_HOSTS."
        )
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host and origin not in origins:
        raise ForbiddenError(
            "Without API keys this server takes no requests from pages of another origin; "
            "start it with keys, or name the origin in CORS_ORIGINS."
        )
    if headers.get("content-type", "").partition(";")[0].strip().lower() not in TAKEN:
        raise InvalidRequestError("Send the body as application/json.")


def _name(host: str) -> str:
    """A Host header without its port, in lower case; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
