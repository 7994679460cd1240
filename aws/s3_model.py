"""A model directory from S3: listed, fetched, verified, and only then in place.

`fetch` is the whole interface. A directory is named after what the listing said (names, sizes, ETags), filled beside
its final name and renamed when every file equals its object: half a model is never loaded, a whole one never fetched
twice.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from aws import s3_checksums
from aws.observability import logger
from aws.s3_transfer import WORKERS, GaveUpError, Progress, RemoteFile, download
from engines.errors import LoadError
from startup.model_files import MANIFEST, SHARD_INDEX, is_served, missing_from

READ_TIMEOUT = 10.0
"""Seconds without a byte after which a read counts as broken and is taken up again."""
URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>[^/].*?)/*")


def fetch(uri: str, destination: Path) -> Path:
    """Bring the model at `uri` (`s3://bucket/prefix`) to a directory below `destination` and return that directory.

    Raises LoadError, and then leaves nothing that could be taken for a model; what was read is kept for the next try.
    """
    bucket, prefix = parse(uri)
    started = time.monotonic()
    client = boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=WORKERS,
            connect_timeout=5,
            read_timeout=READ_TIMEOUT,
            response_checksum_validation="when_required",  # whole files are verified, not pieces
        ),
    )
    try:
        destination.mkdir(parents=True, exist_ok=True)
        files = _choose(client, bucket, uri, _list(client, bucket, prefix))
        model = destination / _identity(uri, files) / prefix.rpartition("/")[2]
        with _one_at_a_time(destination):
            if not model.is_dir():
                _fill(client, bucket, files, model.parent, model.name, uri)
    except (GaveUpError, BotoCoreError, ClientError, OSError) as error:
        raise LoadError(_explain(error, uri, bucket, destination)) from error
    finally:
        client.close()
    logger.info("model fetched", uri=uri, seconds=round(time.monotonic() - started, 2))
    return model


def parse(uri: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`; a trailing slash is dropped. Raises LoadError."""
    match = URI.fullmatch(uri)
    if match is None:
        raise LoadError(f"MODEL_DIR is {uri!r}; an S3 model is named s3://bucket/prefix, the prefix being its folder.")
    return match["bucket"], match["prefix"]


def _list(client: Any, bucket: str, prefix: str) -> list[RemoteFile]:
    """Every object below `prefix/`."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return [
        RemoteFile(entry["Key"].removeprefix(f"{prefix}/"), entry["Key"], entry["Size"], entry["ETag"])
        for page in pages
        for entry in page.get("Contents", ())
        if not entry["Key"].endswith("/")
    ]


def _choose(client: Any, bucket: str, uri: str, listed: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The objects to fetch: an artifact's, as its manifest names them, or the served files of a checkpoint."""
    by_name = {file.name: file for file in listed}
    if MANIFEST in by_name:
        wanted = {MANIFEST, *_checksums(_read_json(client, bucket, by_name[MANIFEST]), f"{uri}/{MANIFEST}")}
    else:
        wanted = {name for name in by_name if is_served(name)}
        lacking = missing_from(wanted)
        if lacking is not None:
            raise LoadError(f"{uri}/ has no {lacking}; upload the whole model directory to that prefix.")
        if SHARD_INDEX in by_name:
            wanted.update(_shards(_read_json(client, bucket, by_name[SHARD_INDEX]), f"{uri}/{SHARD_INDEX}"))
    missing = sorted(wanted - by_name.keys())
    if missing:
        raise LoadError(f"{uri}/ lacks {', '.join(missing)}; upload the whole model directory to that prefix.")
    unsafe = [name for name in wanted if ".." in name.split("/") or name.startswith("/")]
    if unsafe:
        raise LoadError(f"{uri}/ names {unsafe[0]!r}, which lies outside the model; rename the object.")
    return [by_name[name] for name in sorted(wanted)]


def _read_json(client: Any, bucket: str, file: RemoteFile) -> Any:
    body = client.get_object(Bucket=bucket, Key=file.key, IfMatch=file.etag)["Body"].read()
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"s3://{bucket}/{file.key} is not JSON; upload the model again.") from error


def _checksums(manifest: Any, where: str) -> dict[str, str]:
    """The sha256 of each file that a compiled model's manifest names."""
    try:
        sums = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        if all(isinstance(sum_, str) for sum_ in sums.values()):
            return sums
    except (TypeError, LookupError, AttributeError):
        pass
    raise LoadError(f"{where} is not the manifest of a compiled model; upload the model again.")


def _shards(index: Any, where: str) -> set[str]:
    """The weight files that a checkpoint's index names."""
    try:
        names = set(index["weight_map"].values())
        if all(isinstance(name, str) for name in names):
            return names
    except (TypeError, LookupError, AttributeError):
        pass
    raise LoadError(f"{where} is not an index of weight files; upload the model again.")


def _identity(uri: str, files: Sequence[RemoteFile]) -> str:
    """A name that changes whenever an object does."""
    seen = json.dumps([uri, *([file.name, file.size, file.etag] for file in files)])
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


@contextmanager
def _one_at_a_time(destination: Path) -> Iterator[None]:
    """Processes that share `destination` take turns; the later ones find the model in place."""
    with (destination / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(client: Any, bucket: str, files: Sequence[RemoteFile], target: Path, name: str, uri: str) -> None:
    """Download and verify `files` into `target/name`, which appears only when all of them are right."""
    partial = target.with_name(f"{target.name}.partial")
    journal = target.with_name(f"{target.name}.journal")
    for other in target.parent.iterdir():
        if other.name != ".lock" and other not in (partial, journal):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    total = sum(file.size for file in files)
    _require_space(total, partial, uri)
    progress = Progress(total, _log_progress)
    download(client, bucket, files, partial / name, journal, progress.add)
    try:
        _verify(client, bucket, files, partial / name)
    except LoadError:
        shutil.rmtree(partial)
        journal.unlink()
        raise
    partial.rename(target)
    journal.unlink()


def _log_progress(done: int, total: int) -> None:
    logger.info("model download", megabytes=done // 1_000_000, of=total // 1_000_000)


def _require_space(total: int, partial: Path, uri: str) -> None:
    """Raises LoadError unless the disk holds the model, what an earlier try reserved counted in."""
    reserved = sum(file.stat().st_blocks * 512 for file in partial.rglob("*") if file.is_file())
    free = shutil.disk_usage(partial.parent).free
    if total > free + reserved:
        raise LoadError(
            f"{uri} is {total / 1e6:.0f} MB and {partial.parent} has {(free + reserved) / 1e6:.0f} MB free; raise the "
            f"function's ephemeral storage above {total / 1e6:.0f} MB, or put the model into the image."
        )


def _verify(client: Any, bucket: str, files: Sequence[RemoteFile], folder: Path) -> None:
    """Raises LoadError unless each file has its checksum: the manifest's where it names one, else its object's."""
    manifest = folder / MANIFEST
    made = _checksums(json.loads(manifest.read_bytes()), str(manifest)) if manifest.exists() else {}

    def check(file: RemoteFile) -> None:
        path = folder / file.name
        if file.name in made:
            equal: bool | None = s3_checksums.sha256(path).hex() == made[file.name]
        else:
            head = client.head_object(Bucket=bucket, Key=file.key, IfMatch=file.etag, ChecksumMode="ENABLED")
            equal = s3_checksums.equals_object(
                path,
                head,
                lambda: int(client.head_object(Bucket=bucket, Key=file.key, PartNumber=1)["ContentLength"]),
            )
        if equal is None:
            raise LoadError(
                f"s3://{bucket}/{file.key} has no checksum to verify it by; upload it again with "
                "`aws s3 cp --checksum-algorithm CRC64NVME`."
            )
        if not equal:
            raise LoadError(f"s3://{bucket}/{file.key} does not match its checksum; upload the model again.")

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(check, files):
            pass


def _explain(error: Exception, uri: str, bucket: str, destination: Path) -> str:
    """One sentence for whoever set MODEL_DIR."""
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 and code != "InvalidObjectState":
            if "kms:" in str(error):
                return f"S3 cannot decrypt {uri} for this role ({code}); it needs kms:Decrypt on the objects' key."
            return (
                f"S3 denies access to {uri} ({code}); the role needs s3:GetObject on the prefix and s3:ListBucket on "
                f"bucket {bucket}."
            )
        if code == "NoSuchBucket":
            return f"There is no bucket {bucket!r} (MODEL_DIR is {uri}); check its name and region."
        if code in ("PreconditionFailed", "412"):
            return f"An object of {uri} changed while it was read; start again when its upload is complete."
        if code in ("NoSuchKey", "404"):
            return f"An object of {uri} was deleted while it was read; start again when its upload is complete."
        return f"S3 refuses {uri}: {error}"
    if isinstance(error, NoCredentialsError):
        return f"There are no AWS credentials to read {uri} with; give the function a role or set AWS_PROFILE."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{destination} is full; raise the function's ephemeral storage above the size of {uri}."
    if isinstance(error, OSError) and error.errno is not None:
        return f"{uri} could not be written to {destination}: {os.strerror(error.errno)}."
    return f"{uri} could not be read from S3: {error}"
