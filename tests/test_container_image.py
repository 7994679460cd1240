"""The image of `make image`, run as Lambda runs it, and what is in it."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.containers import IMAGE, LIKE_LAMBDA, ROOT, Container, build, function, started

pytestmark = pytest.mark.container
DIRECT = json.loads((ROOT / "events" / "direct.json").read_text())


@pytest.fixture(scope="module")
def lambda_container() -> Iterator[Container]:
    with function() as container:
        yield container


def test_answers_under_lambdas_restrictions_and_loads_once(lambda_container: Container) -> None:
    first, second = lambda_container.invoke(DIRECT), lambda_container.invoke(DIRECT)
    assert first["choices"][0]["text"].strip()
    assert (first["timings"]["cold_start"], second["timings"]["cold_start"]) == (True, False)
    assert lambda_container.log().count('"model loaded"') == 1


def test_the_model_runs_without_root_and_without_shared_memory(lambda_container: Container) -> None:
    lambda_container.invoke(DIRECT)
    status = lambda_container.run(
        "sh", "-c", "for p in /proc/[0-9]*; do grep -qa ^python3.*aws.runtime $p/cmdline && cat $p/status; done; true"
    )
    users = [line.split()[1:] for line in status.splitlines() if line.startswith(("Uid:", "Gid:", "Groups:"))]
    assert users == [["65534"] * 4, ["65534"] * 4, []]
    assert lambda_container.run("sh", "-c", "test -e /dev/shm || echo none").strip() == "none"


def test_runs_as_whatever_user_lambda_chooses() -> None:
    with function("--user", "993:990") as container:
        assert container.invoke(DIRECT)["choices"][0]["text"].strip()


def test_traces_without_a_daemon_and_without_a_network() -> None:
    with function("--env", "TRACING=true") as container:
        assert container.invoke(DIRECT)["choices"][0]["text"].strip()


def test_a_read_only_root_and_no_network_are_what_the_test_says(lambda_container: Container) -> None:
    assert lambda_container.run("sh", "-c", "touch /var/task/x 2>&1 || true").strip().endswith("Read-only file system")
    assert lambda_container.run("sh", "-c", "ls /sys/class/net").split() == ["lo"]


def test_serves_http_with_another_command() -> None:
    uvicorn = ["uvicorn", "app:app", "--host", "0.0.0.0", "--port", "8080"]
    with started([*LIKE_LAMBDA, "--publish", "127.0.0.1::8080"], uvicorn) as server:
        server.wait_for("Uvicorn running")
        command = ["docker", "port", server.identity, "8080"]
        address = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
        request = urllib.request.Request(
            f"http://{address}/v1/completions", json.dumps(DIRECT).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            assert json.load(response)["choices"][0]["text"].strip()


def inside(code: str) -> str:
    """What Python code prints in a fresh container."""
    command = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", IMAGE, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_module_is_byte_compiled() -> None:
    code = """
import importlib.util, pathlib
for root in ("/opt/python", "/var/task"):
    for source in pathlib.Path(root).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(str(source)))
        flags = int.from_bytes(compiled.read_bytes()[4:8], "little") if compiled.exists() else None
        if flags != 1:  # a hash, never checked against the source
            print(source)
"""
    assert inside(code) == ""


def test_no_build_tool_cache_or_source_of_the_build_is_left() -> None:
    code = """
import glob, pwd, shutil
print([tool for tool in ("gcc", "g++", "cc", "ld", "as", "make", "cmake", "ninja", "git") if shutil.which(tool)])
left = ("/build", pwd.getpwuid(0).pw_dir + "/.cache/*", "/tmp/*")
left += ("/opt/python/torch/include", "/opt/python/setuptools")
left += ("/opt/**/*.a", "/opt/**/*.whl", "/var/**/*.whl", "/var/task/**/*.cpp", "/var/task/**/*.h")
print([found for pattern in left for found in glob.glob(pattern, recursive=True)])
"""
    assert inside(code) == "[]\n[]\n"


def test_the_compiled_model_is_what_a_build_with_nothing_changed_serves_without_torch() -> None:
    code = """
import importlib.util, os
print(os.path.isfile("/opt/model/manifest.json"))
print([name for name in ("torch", "transformers") if importlib.util.find_spec(name)])
"""
    assert inside(code) == "True\n[]\n"


def test_the_functions_folder_holds_the_functions_code_and_nothing_else() -> None:
    found = set(json.loads(inside("import json, os; print(json.dumps(os.listdir('/var/task')))")))
    packages = {"api", "aws", "engines", "generation", "server", "startup", "__pycache__"}
    assert found == packages | {"bootstrap"} | {path.name for path in ROOT.glob("*.py")}


def test_the_image_knows_no_secret() -> None:
    command = ["docker", "image", "inspect", "--format", "{{json .Config.Env}}", IMAGE]
    names = [
        variable.partition("=")[0]
        for variable in json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    ]
    assert not [name for name in names if any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL=models/nowhere"], "There is no checkpoint 'models/nowhere' in the build context"),
        (["MODEL=team/demo", "MODEL_REVISION=main"], "MODEL_REVISION is 'main'; pin team/demo to a commit"),
        (["ENGINE=fast"], "ENGINE is 'fast'; set it to one of auto, compiled, transformers"),
        (["QUANTIZE=int3"], "QUANTIZE is 'int3'; set it to one of int8, int4, none, auto"),
    ],
)
def test_a_build_that_cannot_work_says_why(arguments: list[str], said: str) -> None:
    result = build(arguments)
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
    assert "AS packages" not in result.stdout, "it must be said before packages are installed"
