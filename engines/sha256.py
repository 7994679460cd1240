"""SHA-256 by Python's own code, for the few kilobytes of which a start and each answer need one.

`hashlib` has OpenSSL loaded, 4.7 MB of it, whatever is asked of it first. Python keeps its own code in modules without
public names, as what `hashlib` falls back on; where they have other names, `hashlib` it is. The digests are the same.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha2 import sha256  # since Python 3.12
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = ["sha256"]
