"""The page at `/`: one static file, and headers by which a browser runs nothing but what stands in it.

It knows nothing of a deployment: what it shows it asks of the API, with the key that its reader types.
Imported with the first request for it.
"""

import base64
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from engines.sha256 import sha256

FILE = Path(__file__).with_name("page.html")


@cache
def page() -> tuple[bytes, Mapping[str, str]]:
    """The file's bytes, and the headers to send with them."""
    html = FILE.read_text(encoding="utf-8")
    policy = (
        "default-src 'none'",
        f"script-src {_digest(html, 'script')}",
        f"style-src {_digest(html, 'style')}",
        "img-src data:",
        "connect-src 'self'",
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"),
    )
    return html.encode(), {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def _digest(html: str, tag: str) -> str:
    """A policy's word for the only element of this name."""
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
