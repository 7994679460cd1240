"""The parts of the measurements that need no model: statistics, variants, traces, reports, and a peer's process."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from benchmarks import checkpoints
from benchmarks.__main__ import main
from benchmarks.break_even.measured import measured_cold, measured_typical, measured_warm
from benchmarks.cold_start.container import require_docker
from benchmarks.cold_start.observe import opened_in
from benchmarks.cold_start.remains import beside_weights, file_sizes, import_times, remains
from benchmarks.cold_start.report import PHASES, split
from benchmarks.cold_start.report import sections as cold_start_sections
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.load.client import send
from benchmarks.peers.contenders import PEERS, interpreter
from benchmarks.peers.report import ratios
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.report import DOCUMENTS, REPORTS, markdown, quote
from benchmarks.results import Recorder, digest, load_result
from benchmarks.roofline.command import prefills
from benchmarks.stats import noise_note, paired_ratio, summarise
from benchmarks.variants import interleaved, parse_variants
from tests.running_server import wait_until

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
QUIET = {"load_average_at_start": 0.0, "cpus": 2}


def test_a_summary_takes_its_width_from_the_middle_half() -> None:
    summary = summarise([1.0, 2.0, 3.0, 4.0, 100.0])
    assert summary.median == 3
    assert summary.spread == pytest.approx(2 / 3)
    assert summary.noisy
    assert not summarise([1.0, 1.01, 1.02]).noisy


def test_ratios_are_taken_within_a_round_so_that_drift_cancels() -> None:
    median, low, high = paired_ratio([1, 10, 100], [2, 20, 200])
    assert (median, low, high) == (2, 2, 2)


def test_a_noisy_run_says_so_and_a_busy_machine_too() -> None:
    assert "Noisy run" in noise_note({"a": 0.02, "b": 0.4}, QUIET)
    assert "40% for b" in noise_note({"a": 0.02, "b": 0.4}, QUIET)
    assert "Noisy" not in noise_note({"a": 0.02}, QUIET)
    assert "Busy machine" in noise_note({"a": 0.02}, {"load_average_at_start": 3.0, "cpus": 2})


def test_every_round_holds_every_contender_once_in_changing_order() -> None:
    rounds = list(interleaved(["a", "b", "c"], 20))
    assert [i for i, _ in rounds] == [i for i in range(20) for _ in range(3)]
    orders = {tuple(item for j, item in rounds if j == i) for i in range(20)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 1


@pytest.mark.parametrize("text", ["nothing", "=x", "name=", "a=/nowhere", "a=SmolLM2-9T"])
def test_a_model_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_variants([text])


def test_a_variant_knows_its_engine_and_its_environment(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    (variant,) = parse_variants([f"mine={tmp_path},THREADS=1"])
    assert variant.engine == "compiled"
    assert variant.environment == {"THREADS": "1"}
    with pytest.raises(InputError, match="must differ"):
        parse_variants([f"mine={tmp_path}", f"mine={tmp_path}"])


def test_a_trace_counts_each_file_once_and_no_directory_or_kernel_file() -> None:
    trace = (
        '12 openat(AT_FDCWD, "/lib/a.so", O_RDONLY|O_CLOEXEC) = 3\n'
        '13 openat(AT_FDCWD, "/lib/./a.so", O_RDONLY) = 3\n'
        '12 open("/lib/b.so", O_RDONLY) = 3\n'
        '12 openat(AT_FDCWD, "/lib", O_RDONLY|O_DIRECTORY) = 3\n'
        '12 openat(AT_FDCWD, "/proc/self/stat", O_RDONLY) = 3\n'
        '12 execve("/usr/bin/python", [], 0x0) = 0\n'
    )
    assert opened_in(trace) == {"/lib/a.so", "/lib/b.so"}


def test_what_remains_of_a_cold_start_is_told_by_package_and_by_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(5_000_000))
    (tmp_path / "tokenizer.json").write_bytes(bytes(2_000_000))
    opened = {str(tmp_path / "tokenizer.json"), str(tmp_path / "weights.bin"), str(ROOT / "handler.py"), "/no/such"}
    files = file_sizes(opened, tmp_path)
    imports = import_times([
        "import time: self [us] | cumulative | imported package",
        "import time:       500 |       1500 |   json.decoder",
        "import time:      1500 |       2000 | json",
        "import time:     90000 |      99000 | handler",
        "START RequestId",
    ])  # fmt: skip
    assert imports == {"json": 2.0}
    assert list(files) == ["the model's weights.bin", "the model's tokenizer.json", "handler.py", "/no/such"]
    assert 2_000_000 < beside_weights(files) < 2_100_000
    shown = remains({"remains": {"a": {"imports_ms": imports, "files": files}}})
    assert "| `json` | 2.0 |" in shown
    assert "| all 4, weights aside | **2.0** |" in shown


COLD = {
    "variant": "a", "memory_mb": None, "cache": "warm", "round": 0, "to_first_answer_s": 2.0,
    "phases_s": {"start": 0.1, "app_imports": 0.2, "imports": 0.5, "weights": 0.3, "tokenizer": 0.4,
                 "warm_up": 0.1, "total": 1.7},
}  # fmt: skip


def test_containers_are_skipped_by_name_where_docker_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotInstalledError, match=r"Docker does not answer; apt-get install docker\.io"):
        require_docker()


def test_load_is_sent_when_it_is_due_and_not_when_earlier_answers_are_back() -> None:
    finished = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        samples = send(server.server_port, [0.0, 0.01, 0.02], {}, lambda: finished.append(1))
        server.shutdown()
        thread.join()
    assert sorted(sample["status"] for sample in samples) == [200, 200, 429]
    assert len(finished) == 3


class _Slow(BaseHTTPRequestHandler):
    """Answers nobody until three requests are in flight, and then one of them with 429."""

    together = threading.Barrier(3)

    def do_POST(self) -> None:
        self.send_response(429 if self.together.wait(timeout=30) == 0 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Silent."""


def test_the_phases_of_a_cold_start_add_up_to_the_whole() -> None:
    parts = split(COLD)
    assert set(parts) == set(PHASES)
    assert sum(parts.values()) == pytest.approx(2.0)
    assert parts["rest"] == pytest.approx(0.1)


def test_break_even_takes_its_times_from_measured_files() -> None:
    content: dict[str, Any] = {"settings": {"models": {"a": {}}}, "samples": [COLD]}
    assert measured_cold(content, None) == {"cold_s": 1.7, "load_s": 0.7}
    warm = {"variant": "a", "prompts": 1, "prompt_tokens": 8}
    content["samples"] = [{**warm, "output_tokens": n, "call_s": n * 0.1} for n in (10, 30)]
    assert measured_warm(content, "a") == {"warm_s": pytest.approx(2.0), "warm_cv": pytest.approx(0.5)}
    kinds = [("typical", True, 1.0), ("typical", True, 3.0), ("typical", False, 9.0), ("seen", True, 7.0)]
    content["samples"] = [{"variant": "a", "kind": k, "reuses": r, "call_s": s} for k, r, s in kinds]
    assert measured_typical(content, "a") == {"warm_s": 2.0, "warm_cv": 0.5}
    with pytest.raises(InputError, match="is not in these results"):
        measured_cold(content, "b")


def test_a_results_file_keeps_no_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["b", "warm", "--model", "a=/home/me/models/m,THREADS=1", "--out", "/tmp/x/y"])
    recorder = Recorder(tmp_path / "r.json", "warm", "What.", {})
    recorder.save(complete=True)
    assert load_result(tmp_path / "r.json")["command"] == "python -m benchmarks warm --model a=m,THREADS=1 --out y"


def test_an_interrupted_run_keeps_its_samples_and_says_that_it_is_partial(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.json", "remote", "What.", {"prices": {}, "memory": 1})
    recorder.data = {"samples": [], "notes": []}
    recorder.save(complete=False)
    content = load_result(tmp_path / "r.json", "remote")
    assert not content["complete"]
    assert "interrupted" in markdown(content)
    with pytest.raises(InputError, match="holds results of remote"):
        load_result(tmp_path / "r.json", "warm")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def runs(pid: str) -> bool:
    try:
        return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_that_is_told_to_end_ends_its_processes_and_claims_no_results(tmp_path: Path) -> None:
    options = ["--model", "demo=models/demo", "--prompt", "60", "--calls", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks", "deadlines", *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        wait_until(lambda: bool(children(run.pid)), "it has started something")
        started = children(run.pid)
        run.terminate()
        assert run.stderr is not None
        assert "interrupted; nothing was measured yet" in run.stderr.read()
        assert run.wait() == 130
    wait_until(lambda: not any(map(runs, started)), "what it started has ended")


LOADED = """
import time
from benchmarks.deadlines.command import _load
with _load(True):
    print(1, flush=True)
    time.sleep(60)
"""


def test_a_load_ends_with_the_run_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", LOADED], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.readline()
        started = children(run.pid)
        assert started
        wait_until(
            lambda: not any("prctl" in Path(f"/proc/{pid}/cmdline").read_text() for pid in started), "each ends with it"
        )
        run.kill()
    wait_until(lambda: not any(map(runs, started)), "the load has ended")


def test_a_file_that_cannot_be_drawn_does_not_keep_the_others_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_bytes((RESULTS / "distributed-map.json").read_bytes())
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert (tmp_path / "b.md").exists()
    assert "a.json cannot be drawn" in capsys.readouterr().err
    assert main(["report", "--results", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


ECHO = """
import sys
sys.path.insert(0, {folder!r})
from loop import serve
serve(lambda: lambda ids, tokens: iter(ids * tokens) {extra})
"""


def _worker(tmp_path: Path, extra: str = "") -> list[str]:
    folder = str(ROOT / "benchmarks" / "peers" / "workers")
    script = tmp_path / "worker.py"
    script.write_text(ECHO.format(folder=folder, extra=extra))
    return [sys.executable, str(script)]


def test_a_worker_gives_the_tokens_asked_for_with_its_times(tmp_path: Path) -> None:
    with Session(_worker(tmp_path)) as session:
        reply = session.generate([7, 8], 3)
        assert reply["ids"] == [7, 8, 7]
        assert session.peak_memory > 1_000_000
    assert {"load_s", "first_s", "decode_s"} <= set(reply)


def test_a_worker_that_fails_or_dies_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with (
        Session(_worker(tmp_path, "if tokens < 9 else 1 / 0")) as session,
        pytest.raises(PeerFailedError, match="Zero"),
    ):
        session.generate([1], 9)
    with pytest.raises(PeerFailedError, match="ended with status 3"), Session([sys.executable, "-c", "exit(3)"]):
        pass


def test_an_absent_peer_is_skipped_with_the_command_that_installs_it() -> None:
    peer = next(peer for peer in PEERS if peer.name == "llama.cpp")
    with pytest.raises(NotInstalledError, match=r"llama\.cpp is not installed; make bench-peers"):
        interpreter(peer, {"llama-cpp-python": "/nowhere/python"})


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cold-start", "--runs", "0"], "at least one run"),
        (["cold-start", "--memory-mb", "9"], "128 to 10240 MB"),
        (["cold-start", "--image", "causallm"], "--image takes NAME=IMAGE"),
        (["cold-start", "--model", "demo=models/demo", "--prompt", "other=20"], "--prompt takes NAME=TOKENS"),
        (["cold-start", "--model", "demo=models/demo", "--prompt", "demo=0"], "--prompt takes NAME=TOKENS"),
        (["load", "--workers", "0"], "at least one"),
        (["load", "--rate", "0"], "above zero"),
        (["load", "--rate", "5000"], "more than 20,000"),
        (["warm", "--calls", "1"], "at least two calls"),
        (["warm", "--prompt", "0"], "--prompt 0"),
        (["roofline", "--repeats", "1"], "at least two"),
        (["roofline", "--warm", "/nowhere.json"], "/nowhere.json does not exist"),
        (["peers", "--tokens", "1"], "--tokens 1"),
        (["peers", "--python", "nobody=/x"], "--python takes PEER=PATH"),
        (["peers", "--checkpoint", "/nowhere"], "neither a checkpoint directory nor"),
        (["memory", "--processes", "1"], "--processes 1: at least two"),
        (["memory", "--prompt", "0"], "--prompt 0"),
        (["memory", "--model", "a=models/demo,MAX_TOKENS=9"], "MAX_TOKENS=9 is not understood"),
        (["memory", "--model", "a=models/demo,THREADS=many"], "THREADS=many is not understood"),
        (["fidelity", "--checkpoint", "/nowhere"], "neither a checkpoint directory nor"),
        (["fidelity", "--text", "/nowhere.txt"], "/nowhere.txt holds no text"),
        (["fidelity", "--quantize", "int8", "int8"], "names one twice"),
        (["break-even", "--cold-s", "1"], "--load-s, --warm-s: give seconds by hand"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_starts(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_measurement_needs_torch_to_say_what_it_does() -> None:
    code = (
        "import sys; sys.argv = ['b', '--help']; import runpy\ntry: runpy.run_module('benchmarks', run_name='__main__')"
    )
    code += "\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_committed_tables_and_plots_are_those_of_the_committed_results(path: Path) -> None:
    content = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == markdown(content), "run `python -m benchmarks report`"
    for name in REPORTS[content["benchmark"]].FIGURES:
        plot = path.with_name(f"{path.stem}-{name}.svg").read_text()
        assert f"results {digest(content)}" in plot, "run `python -m benchmarks report`"


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if (ROOT / path).exists()], ids=str)
def test_documents_quote_the_committed_results(document: Path) -> None:
    text = (ROOT / document).read_text()
    assert quote(text, ROOT / document, RESULTS) == text, "run `python -m benchmarks report`"


def test_peers_are_compared_pairwise_with_ours_of_the_same_precision() -> None:
    tuned = [("transformers float32", "float32"), ("rival int8", "int8"), ("rival int4", "int4"), ("own int8", "int8")]
    content: dict[str, Any] = {
        "tuning": [{"contender": label, "precision": precision} for label, precision in tuned],
        "ours": ["own int8"],
        "starts": [{"contender": label, "round": 0, "to_first_token_s": 1.0} for label, _ in tuned[1:]],
        "samples": [
            {"contender": label, "round": i, "prompt_tokens": 18, "tokens": 11, "load_s": 0.0, "first_s": 1.0,
             "decode_s": (1 + i) * factor}
            for i in range(3)
            for (label, _), factor in zip(tuned, (9, 3, 4, 1), strict=True)
        ],
    }  # fmt: skip
    head, _, *rows = ratios(content).splitlines()
    assert head == "|  | process to first token | first token, 18 in | each later, 18 in |"
    assert rows == [
        "| transformers float32 / own int8 | - | 1.00 | 9.00 |",
        "| rival int8 / own int8 | 1.00 | 1.00 | 3.00 |",
    ]


def test_memory_sizes_beyond_the_machine_are_named() -> None:
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "settings": {"models": {"a": {"engine": "compiled"}}},
        "failed": {}, "files_opened": {}, "samples": [{**COLD, "memory_mb": size} for size in (512, 10_240)],
    }  # fmt: skip
    assert cold_start_sections(content)["notes"] == (
        "- 10,240 MB: Lambda gives more than this machine's 2 vCPUs; measured with 2.\n"
    )


def test_cold_starts_stand_by_their_prompts_where_one_was_baked() -> None:
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "failed": {}, "files_opened": {},
        "settings": {"models": {"short": {"engine": "compiled"}, "baked": {"engine": "compiled"}}},
        "samples": [
            {**COLD, "variant": name, "cache": cache, "round": 0, "to_first_answer_s": took,
             "prompt_tokens": tokens, "cached_tokens": baked}
            for name, tokens, baked, took in (("short", 20, 0, 0.1), ("baked", 1_020, 992, 0.2))
            for cache in ("cold", "warm")
        ],
    }  # fmt: skip
    assert "| baked | 1,020 | 992 | 200 ms | 200 ms |" in cold_start_sections(content)["prompts"]
    content["samples"] = [sample | {"cached_tokens": 0} for sample in content["samples"]]
    assert "prompts" not in cold_start_sections(content)


def test_images_are_compared_with_the_first_of_their_own_tag() -> None:
    models = {
        name: {"engine": "container", "model": f"{name}:{tag}"} for name, tag in (("a", "x"), ("b", "y"), ("c", "y"))
    }
    took = {"a": 1.0, "b": 8.0, "c": 2.0}
    content: dict[str, Any] = {
        "machine": {"cpus": 2, "load_average_at_start": 0.0}, "settings": {"models": models}, "failed": {},
        "files_opened": {"a": 9, "b": 1_000, "c": 50}, "image_bytes": dict.fromkeys(models, 10 ** 8),
        "samples": [
            {**COLD, "variant": name, "cache": cache, "round": i, "to_first_answer_s": seconds,
             "disk_read_bytes": 3e7 * (cache == "cold")}
            for name, seconds in took.items() for cache in ("cold", "warm") for i in range(3)
        ],
    }  # fmt: skip
    found = cold_start_sections(content)
    assert found["notes"].count("times as fast as") == 2
    assert "c, all CPUs, warm cache: 4.00 times as fast as b" in found["notes"]
    assert "| c | 100 MB | 2.00 s | 2.00 s | 50 | 30 MB |" in found["images"]


def test_the_floor_counts_the_bytes_that_the_compiler_packs() -> None:
    import torch

    from benchmarks.roofline.measure import BYTES
    from compiler.build import DTYPES, QUANTIZATIONS
    from compiler.ops import Kind
    from compiler.pack import pack
    from compiler.sensitivity import SHARE

    weight = torch.zeros(64, 3200)
    for dtype, kinds in QUANTIZATIONS.items():
        linear, head = (pack(weight, kind).nbytes / weight.numel() for kind in kinds[:2])
        if kinds[0] == Kind.INT4:
            linear += SHARE * (head - linear)
        assert (linear, head) == pytest.approx(BYTES[DTYPES[dtype]], rel=0.01)


def test_a_prompts_part_of_the_arithmetic_counts_the_head_once_and_int4_beside_int8() -> None:
    models = {"four": {"model": "m-int4", "dtype": "int4"}, "other": {"model": "elsewhere", "dtype": "int8"}}
    samples = [
        {"variant": name, "prompt_tokens": 100, "output_tokens": 2, "prompts": 1, "prefill_s": seconds}
        for name in models
        for seconds in (1.0, 2.0, 3.0)
    ]
    floors = {"m": {"weights_per_token": 50, "head_weights": 10, "floor_s": {}}}
    (prompt,) = prefills({"settings": {"models": models}, "samples": samples}, floors, {"int8": 8020.0})
    assert prompt["prefill_s"] == 2.0
    assert prompt["operations_per_s"] == 2 * (40 * 100 + 10) / 2
    assert prompt["operations_per_s"] / prompt["best_operations_per_s"] == 0.5


def test_an_artifact_of_another_compiler_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    monkeypatch.setattr(checkpoints, "COMPILED", tmp_path)
    compiled = tmp_path / checkpoints.compiler_digest() / "model-int8"
    compiled.mkdir(parents=True)
    (compiled / "manifest.json").write_text("{}")
    assert checkpoints.model_directory(f"{checkpoint}:int8") == compiled
    monkeypatch.setattr(checkpoints, "compiler_digest", lambda: "another")
    with pytest.raises(InputError, match="cannot be compiled"):
        checkpoints.model_directory(f"{checkpoint}:int8")
