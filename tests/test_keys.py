"""API keys: which are valid, where they come from, when they are read again, and that nothing ever shows them."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from msgspec.structs import replace

from api.errors import AuthenticationError
from api.keys import RETRY_SECONDS, ApiKeys
from aws.secrets import ATTEMPTS, CONNECT_SECONDS, READ_SECONDS, make_keys, parse_keys
from engines.errors import LoadError
from settings import Settings
from tests.running_server import PATIENCE, ROOT, wait_until

SECRET = "sk-one-that-must-not-show"


def accepts(keys: ApiKeys, key: str) -> bool:
    try:
        keys.check(f"Bearer {key}")
    except AuthenticationError:
        return False
    return True


class Clock:
    """Wall time as a test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Keys that a test changes, and how often they were asked for."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys
        self.fetches = 0
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> tuple[str, ...]:
        assert self.gate.wait(PATIENCE)
        self.fetches += 1
        if not self.keys:
            raise LoadError("the secret is gone")
        return self.keys


def test_any_of_several_keys_is_valid_and_nothing_like_them() -> None:
    keys = ApiKeys(["old", "new"])
    assert accepts(keys, "old")
    assert accepts(keys, "new")
    assert accepts(keys, " new ")
    for wrong in ("", "ne", "newer", "NEW", "old,new", "old new", "neẅ", "\ud800"):
        assert not accepts(keys, wrong)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "new", "Basic new", "Bearernew"])
def test_without_a_bearer_key_openai_s_words_say_how_to_give_one(header: str | None) -> None:
    with pytest.raises(AuthenticationError, match="You didn't provide an API key") as caught:
        ApiKeys(["new"]).check(header)
    assert caught.value.status == 401
    assert caught.value.headers == {"www-authenticate": "Bearer"}


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = __import__("hmac").compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return bool(original(a, b))

    monkeypatch.setattr("hmac.compare_digest", counted)
    keys = ApiKeys(["first", "the second, which is longer", "third"])
    for key in ("first", "third", "none of them, and longer than all of them together"):
        compared.clear()
        accepts(keys, key)
        assert compared == [(32, 32)] * 3


def test_fetched_keys_are_read_again_in_the_background_when_old() -> None:
    clock, source = Clock(), Source("a")
    keys = ApiKeys(["fixed"], source, max_age=300, clock=clock)
    assert source.fetches == 1
    source.keys = ("a", "b")
    clock.now += 299
    assert not accepts(keys, "b")
    assert source.fetches == 1
    clock.now += 2
    source.gate.clear()
    for _ in range(5):
        assert accepts(keys, "a")  # answered while the source is slow
    source.gate.set()
    wait_until(lambda: accepts(keys, "b"), "the new key is known")
    assert source.fetches == 2
    clock.now += 299
    assert accepts(keys, "fixed")
    for thread in threading.enumerate():
        if thread.name == "api-keys":
            thread.join()
    assert source.fetches == 2
    source.keys = ("b",)
    clock.now += 301
    accepts(keys, "b")
    wait_until(lambda: not accepts(keys, "a"), "the old key is no longer valid")


def test_keys_that_cannot_be_read_again_stay_valid_and_are_soon_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    clock, source = Clock(), Source("a")
    keys = ApiKeys([], source, max_age=300, clock=clock)
    source.keys = ()
    clock.now += 301
    assert accepts(keys, "a")
    wait_until(lambda: "stay valid" in caplog.text, "the failure is logged")
    source.keys = ("b",)
    clock.now += RETRY_SECONDS - 1
    assert accepts(keys, "a")
    assert not accepts(keys, "b")
    clock.now += 2
    wait_until(lambda: accepts(keys, "b"), "it was tried again")


def test_a_restored_environment_takes_the_keys_of_now_and_not_of_its_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    import handler

    source = Source("old")
    keys = ApiKeys([], source)
    monkeypatch.setattr(handler, "KEYS", keys)
    source.keys = ("new",)
    assert accepts(keys, "old")
    handler._restored()
    assert (accepts(keys, "old"), accepts(keys, "new")) == (False, True)
    source.keys = ()
    handler._restored()
    assert accepts(keys, "new"), "as long as they cannot be read, known ones stay valid"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one\ntwo\n\n", ["one", "two"]),
        ('["one", "two "]', ["one", "two"]),
        ('{"today": "one", "tomorrow": "two"}', ["one", "two"]),
        ('"one"', ["one"]),
        ("123456", ["123456"]),
        ("", []),
        ("{}", []),
        ('{"a": {"b": "c"}}', []),
        ("[1]", []),
    ],
)
def test_a_secret_s_value_may_have_the_forms_people_use(text: str, keys: list[str]) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("key", ["ключ", "sk-é", "sk\tone", "\ud800"])
def test_a_key_that_no_client_can_send_fails_the_start(key: str) -> None:
    with pytest.raises(LoadError, match="other than printable ASCII") as caught:
        make_keys(Settings(api_keys=("sk-one", key)))
    assert key not in str(caught.value)
    with pytest.raises(LoadError, match="other than printable ASCII"):
        ApiKeys([], Source(key))


def test_without_a_source_no_key_is_asked_for() -> None:
    assert make_keys(Settings()) is None
    assert make_keys(Settings.from_env({"API_KEYS": " , "})) is None
    assert Settings.from_env({"API_KEYS": "a, b,"}).api_keys == ("a", "b")


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """An AWS on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": aws,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("credentials")
def test_keys_come_from_secrets_manager_by_name() -> None:
    client = boto3.client("secretsmanager")
    arn = client.create_secret(Name="keys/api", SecretString=json.dumps({"a": SECRET, "b": "sk-two"}))["ARN"]
    for name in ("keys/api", arn):
        keys = make_keys(Settings(api_keys_secret=name, api_keys=("sk-fixed",), api_keys_max_age=0.001))
        assert keys is not None
        assert all(accepts(keys, key) for key in (SECRET, "sk-two", "sk-fixed"))
        assert not accepts(keys, "sk-three")
    assert keys is not None
    client.put_secret_value(SecretId="keys/api", SecretString="sk-three")
    rotated = keys
    wait_until(lambda: accepts(rotated, "sk-three"), "the rotated secret is read")
    wait_until(lambda: not accepts(rotated, SECRET), "the old key is gone")


@pytest.mark.usefixtures("credentials")
def test_keys_come_from_an_ssm_parameter_by_name() -> None:
    boto3.client("ssm").put_parameter(Name="/keys/api", Value=f"{SECRET},sk-two", Type="SecureString")
    keys = make_keys(Settings(api_keys_parameter="/keys/api"))
    assert keys is not None
    assert accepts(keys, SECRET)
    assert accepts(keys, "sk-two")
    assert not accepts(keys, "kms:alias/aws/ssm:sk-two")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(api_keys_secret="no/such"), "secret 'no/such' \\(ResourceNotFoundException\\)"),
        (Settings(api_keys_parameter="/no/such"), "parameter '/no/such' \\(ParameterNotFound\\)"),
        (Settings(api_keys_secret="blank"), "secret 'blank' \\(it holds no keys\\)"),
        (Settings(api_keys_secret="a", api_keys_parameter="b"), "are both set; name one of them"),
    ],
)
def test_keys_that_cannot_be_read_fail_the_start(settings: Settings, reason: str) -> None:
    client = boto3.client("secretsmanager")
    if settings.api_keys_secret == "blank":
        client.create_secret(Name="blank", SecretString="[]")
    with pytest.raises(LoadError, match=reason):
        make_keys(settings)


def test_an_aws_that_does_not_answer_fails_the_start(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(LoadError, match="EndpointConnectionError"):
        make_keys(Settings(api_keys_secret="keys/api"))


def test_boto3_is_imported_only_for_a_secret_or_a_parameter() -> None:
    script = """
import sys
from aws.secrets import make_keys
from settings import Settings
make_keys(Settings(api_keys=("a",)))
assert not {"boto3", "botocore"} & set(sys.modules)
try:
    make_keys(Settings(api_keys_secret="x"))
except Exception:
    pass
assert {"boto3", "botocore"} <= set(sys.modules)
"""
    env = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "eu-west-1"}
    env |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, check=True)


def test_no_repr_shows_a_key() -> None:
    settings = Settings.from_env({"API_KEYS": SECRET})
    keys = make_keys(settings)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(replace(settings, workers=2))
    assert SECRET not in repr(keys)
    assert SECRET not in repr(vars(keys))


def test_no_log_and_no_error_shows_a_key(llama_directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The handler in a process of its own, with everything logged that can be."""
    script = f"""
import json, logging, sys, types
logging.basicConfig(level=logging.DEBUG)
from tests.deterministic_engine import DeterministicEngine
sys.modules["engines.transformers_engine"] = types.SimpleNamespace(load=lambda *args, **settings: DeterministicEngine())
import handler
class Context:
    aws_request_id = function_name = memory_limit_in_mb = invoked_function_arn = "x"
    def get_remaining_time_in_millis(self): return 100000
for key, body in (({SECRET!r}, '{{"prompt": "x", "max_tokens": 1}}'), ({SECRET!r}, "{{"), ({SECRET!r} + "-not", "")):
    event = {{"version": "2.0", "rawPath": "/v1/completions", "headers": {{"Authorization": "Bearer " + key}},
             "requestContext": {{"http": {{"method": "POST"}}}}, "body": body}}
    print(json.dumps(handler.lambda_handler(event, Context())))
"""
    env = {**os.environ, "API_KEYS": SECRET, "LOG_PROMPTS": "true", "MODEL_DIR": str(llama_directory)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"statusCode"')]
    assert [answer["statusCode"] for answer in answers] == [200, 400, 401]
    assert "prompt and completion" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AuthenticationError):
        ApiKeys(["other"]).check(f"Bearer {SECRET}")
    assert SECRET not in caplog.text


def test_a_store_that_never_answers_is_given_up_within_the_time_that_a_restore_has() -> None:
    assert (CONNECT_SECONDS + READ_SECONDS) * ATTEMPTS < 10 - 2, "Lambda's, less the pauses and the rest of the hook"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, in the kernel, and says nothing
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {**os.environ, "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        code = "from aws.secrets import _client; _client('secretsmanager').get_secret_value(SecretId='x')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**env, "AWS_DEFAULT_REGION": "eu-central-1"},
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        silent.setblocking(False)
        tries = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tries += 1
    assert "ReadTimeoutError" in done.stderr
    assert tries == ATTEMPTS
