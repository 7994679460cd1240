"""The S3 model source against a real S3-compatible server, with a proxy that breaks answers between."""

import hashlib
import json
import os
import random
import subprocess
import threading
import tracemalloc
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig

from aws import s3_model, s3_transfer
from engines.errors import LoadError
from tests import faulty_s3
from tests.faulty_s3 import FaultyProxy

pytest_plugins = ["tests.aws_server"]

BUCKET = "models"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}" * 1000,
    "model.safetensors": random.Random(1).randbytes(2 * s3_transfer.PART + 12345),
    "README.md": b"not served",
    "original/weights.pth": b"not served either",
}
SERVED = {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.fixture
def proxy(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The proxy, with the environment set so that every AWS client goes through it."""
    monkeypatch.setattr(s3_transfer, "PATIENCE", 0.001)
    proxy = FaultyProxy(moto_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def bucket(proxy: FaultyProxy, moto_server: str) -> Any:
    """An S3 client straight to the server, with a bucket that holds a checkpoint under `team/demo`."""
    client = boto3.client("s3", endpoint_url=moto_server)
    client.create_bucket(Bucket=BUCKET)
    for name, content in FILES.items():
        client.put_object(Bucket=BUCKET, Key=f"team/demo/{name}", Body=content)
    client.put_object(Bucket=BUCKET, Key="team/demo-2/config.json", Body=b"another model")
    yield client
    client.close()


URI = f"s3://{BUCKET}/team/demo"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def assert_is_the_model(directory: Path) -> None:
    assert contents(directory) == {name: FILES[name] for name in SERVED}


def assert_no_model(destination: Path) -> None:
    """Nothing below `destination` has a config, except in folders whose names say that they are unfinished."""
    assert not [path for path in destination.rglob("config.json") if ".partial" not in str(path)]


def test_brings_the_served_files_and_nothing_else(bucket: Any, tmp_path: Path) -> None:
    directory = s3_model.fetch(URI + "/", tmp_path)
    assert_is_the_model(directory)
    assert directory.name == "demo"


@pytest.mark.parametrize(
    "fault",
    [faulty_s3.dropped, faulty_s3.truncated, faulty_s3.internal_error, faulty_s3.slow],
    ids=lambda f: f.__name__,
)
def test_goes_on_where_a_read_broke_off(
    fault: faulty_s3.Fault, bucket: Any, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.faults = [fault] * 4
    assert_is_the_model(s3_model.fetch(URI, tmp_path))


def test_asks_only_for_the_bytes_that_are_missing(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.faults = [faulty_s3.truncated]
    s3_model.fetch(URI, tmp_path)
    starts = {int(read.rpartition("=")[2].partition("-")[0]) for read in proxy.ranged_reads}
    middles = {s3_transfer.PART // 2, s3_transfer.PART * 3 // 2}
    middles |= {len(FILES[name]) // 2 for name in SERVED} | {s3_transfer.PART * 2 + 12345 // 2}
    assert starts & middles, proxy.ranged_reads


def test_hangs_up_on_a_stalled_read_and_goes_on(
    bucket: Any, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_model, "READ_TIMEOUT", 0.3)
    proxy.faults = [faulty_s3.stalled]
    assert_is_the_model(s3_model.fetch(URI, tmp_path))


def test_gives_up_on_a_part_that_never_comes(
    bucket: Any, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_transfer, "ATTEMPTS", 2)
    proxy.faults = [faulty_s3.internal_error] * 1000
    with pytest.raises(LoadError, match="could not be read from S3"):
        s3_model.fetch(URI, tmp_path)
    assert_no_model(tmp_path)


def test_a_later_process_reads_only_what_an_earlier_one_lacked(
    bucket: Any, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a fetch that failed after its first part WHEN it is tried again THEN that part is not read again."""
    monkeypatch.setattr(s3_transfer, "WORKERS", 1)
    monkeypatch.setattr(s3_transfer, "ATTEMPTS", 2)
    proxy.faults = [faulty_s3.whole, *[faulty_s3.internal_error] * 1000]
    with pytest.raises(LoadError):
        s3_model.fetch(URI, tmp_path)
    first = proxy.ranged_reads[0]
    proxy.faults, proxy.ranged_reads = [], []
    assert_is_the_model(s3_model.fetch(URI, tmp_path))
    assert proxy.ranged_reads
    assert first not in proxy.ranged_reads


def test_does_not_fetch_a_model_twice(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    first = s3_model.fetch(URI, tmp_path)
    proxy.ranged_reads = []
    assert s3_model.fetch(URI, tmp_path) == first
    assert proxy.ranged_reads == []


def test_racing_fetches_share_one_download(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    threads = [threading.Thread(target=s3_model.fetch, args=(URI, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(proxy.ranged_reads) == len(set(proxy.ranged_reads))


def test_a_changed_model_replaces_the_old_one(bucket: Any, tmp_path: Path) -> None:
    old = s3_model.fetch(URI, tmp_path)
    bucket.put_object(Bucket=BUCKET, Key="team/demo/config.json", Body=b'{"model_type": "gpt2"}')
    new = s3_model.fetch(URI, tmp_path)
    assert (new / "config.json").read_bytes() == b'{"model_type": "gpt2"}'
    assert not old.exists()


def test_refuses_an_object_that_changes_while_it_is_read(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    def change() -> None:
        bucket.put_object(Bucket=BUCKET, Key="team/demo/model.safetensors", Body=b"new weights")

    proxy.on_ranged_read = change
    with pytest.raises(LoadError, match="changed while it was read"):
        s3_model.fetch(URI, tmp_path)
    assert_no_model(tmp_path)


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC64NVME", "SHA256"])
def test_refuses_bytes_that_differ_from_the_objects_checksum(
    algorithm: str, bucket: Any, proxy: FaultyProxy, tmp_path: Path
) -> None:
    for name in SERVED:
        bucket.put_object(Bucket=BUCKET, Key=f"team/demo/{name}", Body=FILES[name], ChecksumAlgorithm=algorithm)
    proxy.faults = [faulty_s3.flipped]
    with pytest.raises(LoadError, match="not match its checksum"):
        s3_model.fetch(URI, tmp_path)
    assert_no_model(tmp_path)
    assert_is_the_model(s3_model.fetch(URI, tmp_path))


def test_verifies_an_object_uploaded_in_parts(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(FILES["model.safetensors"])
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    bucket.upload_file(str(weights), BUCKET, "team/demo/model.safetensors", Config=parts)
    assert_is_the_model(s3_model.fetch(URI, tmp_path / "model"))
    proxy.faults = [faulty_s3.flipped]
    with pytest.raises(LoadError, match="not match its checksum"):
        s3_model.fetch(URI, tmp_path / "again")


def test_verifies_an_artifact_by_its_manifest(bucket: Any, tmp_path: Path) -> None:
    files = {"weights.bin": b"w" * 100, "x86-64-v3/model.so": b"code"}
    sums = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    for name, content in {**files, "notes.txt": b"not in the manifest"}.items():
        bucket.put_object(Bucket=BUCKET, Key=f"built/{name}", Body=content)
    manifest = json.dumps({"files": sums}).encode()
    bucket.put_object(Bucket=BUCKET, Key="built/manifest.json", Body=manifest)
    directory = s3_model.fetch(f"s3://{BUCKET}/built", tmp_path / "right")
    assert contents(directory) == {**files, "manifest.json": manifest}

    bucket.put_object(Bucket=BUCKET, Key="built/weights.bin", Body=b"v" * 100)
    with pytest.raises(LoadError, match=r"weights\.bin does not match its checksum"):
        s3_model.fetch(f"s3://{BUCKET}/built", tmp_path / "wrong")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"sha256": 1}}}']
)
def test_a_manifest_that_is_none_is_named(content: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket=BUCKET, Key="built/manifest.json", Body=content.encode())
    with pytest.raises(
        LoadError, match=r"^s3://.*/built/manifest\.json is not the manifest of a compiled model; upload"
    ):
        s3_model.fetch(f"s3://{BUCKET}/built", tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}'])
def test_an_index_that_is_none_is_named(content: str, bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket=BUCKET, Key="team/demo/model.safetensors.index.json", Body=content.encode())
    with pytest.raises(LoadError, match=r"index\.json is not an index of weight files; upload the model again"):
        s3_model.fetch(URI, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_names_the_key_that_is_missing(name: str, bucket: Any, tmp_path: Path) -> None:
    bucket.delete_object(Bucket=BUCKET, Key=f"team/demo/{name}")
    with pytest.raises(LoadError, match=r"has no (config\.json|tokenizer\.json|\*\.safetensors)"):
        s3_model.fetch(URI, tmp_path)


def test_names_the_shard_that_is_missing(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    bucket.put_object(Bucket=BUCKET, Key="team/demo/model.safetensors.index.json", Body=json.dumps(index).encode())
    with pytest.raises(LoadError, match=r"lacks model-1\.safetensors, model-2\.safetensors"):
        s3_model.fetch(URI, tmp_path)
    assert proxy.ranged_reads == [], "it must be said before anything long is read"


def test_an_empty_prefix_is_an_incomplete_model(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"has no config\.json"):
        s3_model.fetch(f"s3://{BUCKET}/nothing/here", tmp_path)


def test_an_unknown_bucket_is_named(bucket: Any, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no bucket 'nowhere'"):
        s3_model.fetch("s3://nowhere/demo", tmp_path)


def test_denied_access_names_the_permissions(
    bucket: Any, moto_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server checks IAM policies here; the user has none."""
    iam = boto3.client("iam", endpoint_url=moto_server)
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    iam.close()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    def allow_unchecked(requests: int) -> None:
        count = urllib.request.Request(
            f"{moto_server}/moto-api/reset-auth", str(requests).encode(), {"Content-Type": "text/plain"}, method="POST"
        )
        urllib.request.urlopen(count).close()

    allow_unchecked(0)
    try:
        with pytest.raises(LoadError, match=r"denies access .* needs s3:GetObject on the prefix and s3:ListBucket"):
            s3_model.fetch(URI, tmp_path)
    finally:
        allow_unchecked(1_000_000)


def test_a_key_that_the_role_may_not_use_is_named(bucket: Any, proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.faults = [faulty_s3.no_key] * 10
    with pytest.raises(LoadError, match=r"cannot decrypt .* needs kms:Decrypt on the objects' key"):
        s3_model.fetch(URI, tmp_path)


def test_missing_credentials_are_named(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(LoadError, match="no AWS credentials"):
        s3_model.fetch(URI, tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_too_small_is_said_before_the_first_read(bucket: Any, proxy: FaultyProxy, small_disk: Path) -> None:
    with pytest.raises(LoadError, match=r"is 17 MB and .* has 4 MB free; raise the function's ephemeral storage"):
        s3_model.fetch(URI, small_disk)
    assert proxy.ranged_reads == []


def test_a_disk_that_fills_up_meanwhile_is_named(
    bucket: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_model, "_require_space", lambda *_: None)
    with pytest.raises(LoadError, match="is full"):
        s3_model.fetch(URI, small_disk)
    assert_no_model(small_disk)


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///demo", "s3://models", "s3://models/", "s3://UPPER/demo", "s3:/models/demo", "s3://models//"]
)
def test_a_malformed_uri_is_said_at_once(uri: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="s3://bucket/prefix"):
        s3_model.fetch(uri, tmp_path)


def test_memory_stays_bounded(bucket: Any, moto_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model many times larger than all buffers together."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)  # past the proxy, which holds whole parts in this process
    key = "team/demo/model.safetensors"
    bucket.put_object(Bucket=BUCKET, Key=key, Body=bytes(64 << 20))
    s3_model.fetch(URI, tmp_path / "first")  # what clients and service models take does not count
    tracemalloc.start()
    s3_model.fetch(URI, tmp_path / "second")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_reports_progress(bucket: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    s3_model.fetch(URI, tmp_path)
    assert [(record.getMessage(), record.__dict__.get("megabytes")) for record in caplog.records][-2:] == [
        ("model download", 16),
        ("model fetched", None),
    ]
