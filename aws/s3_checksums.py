"""Does a downloaded file equal its S3 object? Compares it with the checksum that S3 itself keeps for the object.

S3 keeps a checksum of the whole object, or for multipart uploads an ETag over the MD5 of each part. An object with
neither (a multipart upload encrypted with KMS, before S3 added checksums by default) cannot be verified.
"""

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

BLOCK = 1 << 20
"""Bytes read at a time: what verifying costs in memory."""


def crc(function: Callable[[bytes, int], int], width: int) -> Callable[[Path], str]:
    """A digest of a file, base64 as S3 writes it, from a CRC of `width` bytes."""

    def digest(file: Path) -> str:
        value = 0
        for block in blocks(file):
            value = function(block, value)
        return base64.b64encode(value.to_bytes(width, "big")).decode()

    return digest


def crc32(file: Path) -> str:
    """CRC-32 by zlib, which the interpreter has loaded anyway."""
    return crc(zlib.crc32, 4)(file)


def crc32c(file: Path) -> str:
    """CRC-32C by AWS's common runtime, which has it in machine instructions."""
    from awscrt import checksums  # type: ignore[import-untyped]

    return crc(checksums.crc32c, 4)(file)


def crc64nvme(file: Path) -> str:
    """CRC-64/NVME, what S3 gives an object whose uploader sent no checksum."""
    from awscrt import checksums

    return crc(checksums.crc64nvme, 8)(file)


def sha256(file: Path) -> bytes:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


WHOLE_OBJECT: tuple[tuple[str, Callable[[Path], str]], ...] = (
    ("ChecksumCRC64NVME", crc64nvme),
    ("ChecksumCRC32C", crc32c),
    ("ChecksumCRC32", crc32),
    ("ChecksumSHA256", lambda file: base64.b64encode(sha256(file)).decode()),
)
"""Fields of a HeadObject answer and what computes each, fastest first."""


def etag(file: Path, part_size: int | None) -> str:
    """The ETag S3 gives an object uploaded in one piece, or in parts of `part_size` bytes."""
    if part_size is None:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "md5").hexdigest()
    parts = [hashlib.md5(part, usedforsecurity=False).digest() for part in blocks(file, part_size)]
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


def equals_object(file: Path, head: Mapping[str, Any], part_size: Callable[[], int]) -> bool | None:
    """Whether `file` is the object that `head` (HeadObject, ChecksumMode ENABLED) describes; None when S3 cannot tell.

    `part_size()` is asked for only where the object was uploaded in parts and has no checksum of its own.
    """
    expected_etag = head["ETag"].strip('"')
    in_parts = "-" in expected_etag
    if head.get("ChecksumType", "COMPOSITE" if in_parts else "FULL_OBJECT") == "FULL_OBJECT":
        for field, digest in WHOLE_OBJECT:
            if field in head:
                return bool(digest(file) == head[field])
    if head.get("ServerSideEncryption", "AES256") != "AES256":
        return None  # under KMS the ETag is no MD5
    return bool(etag(file, part_size() if in_parts else None) == expected_etag)


def blocks(file: Path, size: int = BLOCK) -> Iterator[bytes]:
    """The file's bytes, `size` at a time."""
    with file.open("rb") as stream:
        while block := stream.read(size):
            yield block
