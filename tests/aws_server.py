"""Fixtures of a real AWS-compatible server (moto's) and an environment whose credentials only it takes."""

import contextlib
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

import boto3
import pytest


@contextlib.contextmanager
def serving_aws(host: str = "127.0.0.1") -> Iterator[str]:
    """The server on a free port of `host`; its address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", "0", "-H", host],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    url = next(
        line.partition("Running on ")[2].strip() for line in iter(process.stderr.readline, "") if "Running on " in line
    )
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        yield url
    finally:
        process.terminate()
        process.wait()
        drain.join()
        process.stderr.close()


@pytest.fixture(scope="session")
def moto_process() -> Iterator[str]:
    """The server's address, for the whole run."""
    with serving_aws() as url:
        yield url


@pytest.fixture
def moto_server(moto_process: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server, emptied, and credentials that only it takes."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    urllib.request.urlopen(urllib.request.Request(f"{moto_process}/moto-api/reset", method="POST")).close()
    return moto_process
