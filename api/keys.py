"""Bearer keys: who may use the API. Knows digests only, so that no key can be read back from it.

Where the keys come from is the caller's business: fixed ones, and a function that fetches more and is called again, in
the background of a request, when what it gave has become old.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from api.errors import AuthenticationError
from engines.errors import LoadError
from engines.sha256 import sha256

logger = logging.getLogger(__name__)

MISSING = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)
WRONG = "Incorrect API key provided."
RETRY_SECONDS = 30.0
"""How soon a failed fetch is tried again, by a later request."""


class ApiKeys:
    """The keys that are valid now, any of several. Thread-safe."""

    def __init__(
        self,
        fixed: Iterable[str],
        fetch: Callable[[], Iterable[str]] | None = None,
        *,
        max_age: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Fetches at once, and raises what `fetch` raises; `max_age` in seconds of `clock`.

        LoadError for a key that no HTTP header can carry unchanged: it would never be valid.

        The clock is the wall's: it is right again after a process was frozen or restored from a snapshot.
        """
        self._fixed = _digests(fixed)
        self._fetch = fetch
        self._max_age = max_age
        self._clock = clock
        self._fetched = _digests(fetch()) if fetch else ()
        self._old_at = clock() + max_age
        self._fetching = threading.Lock()

    def check(self, authorization: str | None) -> bytes:
        """The key's digest, which tells its holder from others. AuthenticationError unless it is `Bearer` and valid."""
        import hmac  # which loads OpenSSL: a start without keys has no use for it

        self._refresh_when_old()
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise AuthenticationError(MISSING)
        presented = _digest(key.strip())
        # Every key is compared, whichever of them matches.
        if sum(hmac.compare_digest(presented, valid) for valid in (*self._fixed, *self._fetched)) == 0:
            raise AuthenticationError(WRONG, code="invalid_api_key")
        return presented

    def refresh(self) -> None:
        """Read the keys again, whatever their age. Those known stay valid while they cannot be read."""
        if self._fetch is not None:
            self._fetching.acquire()
            self._refresh(self._fetch)

    def _refresh_when_old(self) -> None:
        if self._fetch is not None and self._clock() >= self._old_at and self._fetching.acquire(blocking=False):
            threading.Thread(target=self._refresh, args=(self._fetch,), name="api-keys", daemon=True).start()

    def _refresh(self, fetch: Callable[[], Iterable[str]]) -> None:
        """What `refresh` does, once the lock is held; releases it."""
        lasts = min(RETRY_SECONDS, self._max_age)
        try:
            self._fetched = _digests(fetch())
            lasts = self._max_age
        except Exception as error:
            logger.warning("The API keys could not be read again, the known ones stay valid: %s", error)
        finally:
            self._old_at = self._clock() + lasts
            self._fetching.release()


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    keys = tuple(keys)
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise LoadError(
            "An API key holds other than printable ASCII, which no HTTP client can send; choose another key."
        )
    return tuple(_digest(key) for key in keys)


def _digest(key: str) -> bytes:
    """Of one length for all keys, so that comparing them tells nothing of theirs."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
