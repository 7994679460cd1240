"""`python -m tools.batch IN OUT`: a file in OpenAI's Batch format, answered here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from api.batch_lines import result_line
from api.model import Model
from api.schema import CompletionRequest
from api.service import Service
from api.validation import validate
from settings import ROOT
from tests.checkpoints import write_tokenizer
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.gate import Gate
from tools.batch import main
from tools.batch_errors import BatchError
from tools.batch_files import ResultsFile, answer_file, count_lines

GATED_RUN = """
import sys
from pathlib import Path
from api.service import Service
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tools.batch_files import answer_file

source, target, tokenizer, gate = map(Path, sys.argv[1:])
with gate.open("rb", buffering=0) as pipe:
    engine = DeterministicEngine(before_forward=lambda: pipe.read(1))
    answer_file(source, target, Service(deterministic_model(read_tokenizer(tokenizer), engine)), 60)
"""
"""The batch in a process of its own, every forward pass of which takes a byte from a pipe."""


def line(custom_id: str, **body: Any) -> str:
    """A line that asks for four tokens."""
    body = {"prompt": "the fox", "max_tokens": 4, "temperature": 0, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body})


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8", errors="surrogatepass")
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def service(llama: Model) -> Service:
    return Service(llama, max_tokens=600)


def run(source: Path, target: Path, service: Service) -> Any:
    return answer_file(source, target, service, count_lines(source))


def test_every_line_gets_a_result_that_openai_s_client_reads(tmp_path: Path, service: Service) -> None:
    source = write(tmp_path / "in.jsonl", *(line(f"id-{number}", n=1 + number % 2) for number in range(70)))
    tally = run(source, tmp_path / "out.jsonl", service)
    found = results(tmp_path / "out.jsonl")
    assert sorted(result["custom_id"] for result in found) == sorted(f"id-{number}" for number in range(70))
    for result in found:
        assert result["id"].startswith("batch_req_")
        assert result["error"] is None
        assert result["response"]["status_code"] == 200
        assert Completion.model_validate(result["response"]["body"]).choices[0].finish_reason == "length"
    assert (tally.answered, tally.failures.total()) == (70, 0)
    assert tally.completion_tokens == 4 * (35 + 70)


def test_responses_and_chats_are_lines_too(tmp_path: Path, llama_directory: Path) -> None:
    service = Service(deterministic_model(read_tokenizer(llama_directory), DeterministicEngine()))
    bodies: dict[str, dict[str, Any]] = {
        "/v1/responses": {"input": "hi", "max_output_tokens": 5},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
    }
    lines = [{"custom_id": url, "method": "POST", "url": url, "body": body} for url, body in bodies.items()]
    source = write(tmp_path / "in.jsonl", *map(json.dumps, lines))
    tally = run(source, tmp_path / "out.jsonl", service)
    answers = {result["custom_id"]: result["response"]["body"] for result in results(tmp_path / "out.jsonl")}
    response = Response.model_validate(answers["/v1/responses"])
    chat = ChatCompletion.model_validate(answers["/v1/chat/completions"])
    assert (response.usage and response.usage.output_tokens, chat.usage and chat.usage.completion_tokens) == (5, 4)
    assert (tally.answered, tally.completion_tokens) == (2, 9)


@pytest.mark.parametrize("made", [0, 3])
def test_a_response_that_the_deadline_cut_is_there_as_far_as_it_got(made: int) -> None:
    usage = {"input_tokens": 2, "output_tokens": made}
    cut = result_line("1", "a", {"object": "response", "usage": usage, "cut_by_deadline": True}, "run")
    assert cut["error"]["code"] == "batch_expired"
    assert (cut["response"] is not None) == bool(made)


def test_an_answer_of_a_batch_is_the_one_that_the_request_gets_alone(tmp_path: Path, service: Service) -> None:
    prompts = [f"the fox {number} and the dog" for number in range(20)]
    source = write(tmp_path / "in.jsonl", *(line(prompt, prompt=prompt, max_tokens=12) for prompt in prompts))
    run(source, tmp_path / "out.jsonl", service)
    together = {
        result["custom_id"]: result["response"]["body"]["choices"] for result in results(tmp_path / "out.jsonl")
    }
    write(source, line("alone", prompt=prompts[7], max_tokens=12))
    run(source, tmp_path / "alone.jsonl", service)
    assert results(tmp_path / "alone.jsonl")[0]["response"]["body"]["choices"] == together[prompts[7]]


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("{'a': 1}", "invalid_json_line", "The line is not valid JSON"),
        ('{"custom_id": "x", "n": NaN}', "invalid_json_line", "NaN is not a JSON number"),
        ("[1]", "invalid_request", "The line must be a JSON object."),
        ('{"prompt": "x"}', "invalid_custom_id", "needs a 'custom_id'"),
        (line("x").replace('"x"', '"\\ud800"'), "invalid_custom_id", "needs a 'custom_id'"),
        (line("x").replace("POST", "GET"), "invalid_method", "must be 'POST'"),
        (line("x").replace("completions", "embeddings"), "invalid_url", "must be '/v1/completions' or"),
        (line("x").replace('"body"', '"bodies"'), "unknown_parameter", "The line has 'bodies'"),
        ('{"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": 5}', "invalid_body", "JSON object"),
        (line("x", stream=True), "invalid_body", "'stream' is not for a batch"),
        (line("first"), "duplicate_custom_id", "has the 'custom_id' of line 1"),
    ],
)
def test_a_line_that_is_no_request_fails_alone_with_one_sentence(
    tmp_path: Path, service: Service, text: str, code: str, sentence: str
) -> None:
    source = write(tmp_path / "in.jsonl", line("first"), text, "", line("last"))
    tally = run(source, tmp_path / "out.jsonl", service)
    (failed,) = [result for result in results(tmp_path / "out.jsonl") if result["error"]]
    assert failed["response"] is None
    assert (failed["error"]["code"], failed["error"]["line"]) == (code, 2)
    assert sentence in failed["error"]["message"]
    assert (tally.answered, dict(tally.failures)) == (2, {code: 1})


def test_a_request_that_is_refused_has_the_status_and_body_of_http(tmp_path: Path, service: Service) -> None:
    source = write(tmp_path / "in.jsonl", line("a", temperature=9), line("b", model="another"), line("c"))
    tally = run(source, tmp_path / "out.jsonl", service)
    found = {result["custom_id"]: result["response"] for result in results(tmp_path / "out.jsonl")}
    assert found["a"]["status_code"] == 400
    assert found["a"]["body"]["error"]["param"] == "temperature"
    assert found["b"]["status_code"] == 404
    assert found["c"]["status_code"] == 200
    assert dict(tally.failures) == {"400": 1, "404": 1}


def test_what_the_results_hold_is_not_done_again(tmp_path: Path, service: Service) -> None:
    target = tmp_path / "out.jsonl"
    source = write(tmp_path / "in.jsonl", line("a"), "nonsense", line("b", temperature=9), line("a"))
    run(source, target, service)
    before = target.read_text()
    write(source, line("a"), "nonsense", line("b", temperature=9), line("a"), line("c"))
    tally = run(source, target, service)
    assert target.read_text().startswith(before)
    assert [result["custom_id"] for result in results(target)[4:]] == ["c"]
    assert (tally.done_before, tally.answered) == (4, 1)


def test_a_line_that_was_repaired_is_answered(tmp_path: Path, service: Service) -> None:
    source = write(tmp_path / "in.jsonl", line("a"), "nonsense")
    run(source, tmp_path / "out.jsonl", service)
    write(source, line("a"), line("b"))
    run(source, tmp_path / "out.jsonl", service)
    assert results(tmp_path / "out.jsonl")[-1]["custom_id"] == "b"


@pytest.mark.parametrize("kept", [1, 10, 17, 60, -1])
def test_half_a_last_line_is_cut_off_and_done_again(tmp_path: Path, service: Service, kept: int) -> None:
    source, target = write(tmp_path / "in.jsonl", line("a"), line("b")), tmp_path / "out.jsonl"
    run(source, target, service)
    first, second = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(first + second[:kept])
    run(source, target, service)
    assert target.read_bytes().startswith(first)
    assert sorted(result["custom_id"] for result in results(target)) == ["a", "b"]


@pytest.mark.parametrize("content", ["notes\n", line("a") + "\n", line("a"), '{"custom_id": "a"}\n', "5\n"])
def test_a_file_of_anything_else_is_left_as_it_is(tmp_path: Path, service: Service, content: str) -> None:
    source, target = write(tmp_path / "in.jsonl", line("a")), tmp_path / "out.jsonl"
    target.write_text(content)
    with pytest.raises(BatchError, match=r"^Line 1 of .*out.jsonl is no result of a batch; name another file\.$"):
        run(source, target, service)
    assert target.read_text() == content


def test_a_killed_run_is_continued_by_the_next_one(tmp_path: Path, llama: Model) -> None:
    """The process is killed in the middle of a forward pass, when some of its lines are written."""
    source = write(tmp_path / "in.jsonl", *(line(str(n), max_tokens=3) for n in range(60)))
    target = tmp_path / "out.jsonl"
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    write_tokenizer(tokenizer)
    with Gate(tmp_path / "gate") as gate:
        command = [sys.executable, "-c", GATED_RUN, str(source), str(target), str(tokenizer), gate.path]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while not target.exists() or target.read_bytes().count(b"\n") == 0:
            assert process.poll() is None
            if gate.left() == 0:
                gate.open()
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = results(target)
    assert 0 < len(before) < 60
    service = Service(deterministic_model(llama.tokenizer, DeterministicEngine()))
    tally = run(source, target, service)
    assert results(target)[: len(before)] == before
    assert sorted(int(result["custom_id"]) for result in results(target)) == list(range(60))
    assert (tally.done_before, tally.answered) == (len(before), 60 - len(before))


def test_two_runs_cannot_write_one_file(tmp_path: Path, service: Service) -> None:
    source, target = write(tmp_path / "in.jsonl", line("a")), tmp_path / "out.jsonl"
    with ResultsFile(target), pytest.raises(BatchError, match="Another run is writing"):
        run(source, target, service)


def test_only_as_many_requests_are_taken_as_there_is_room_for(llama: Model) -> None:
    taken = 0
    service = Service(deterministic_model(llama.tokenizer, DeterministicEngine()), concurrency=4)

    def requests() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield lambda: service.prepare(validate(CompletionRequest, {"prompt": "a", "max_tokens": 3}))

    answers = service.answers(requests())
    done = [next(answers)[0] for _ in range(10)]
    assert taken <= 10 + 8
    assert len(set(done)) == 10
    answers.close()


def test_the_command_says_what_it_did_and_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", line("a"), "nonsense")
    assert main([str(source), str(tmp_path / "out.jsonl")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("1 answered, 1 failed (1 invalid_json_line): ")
    write(source, line("a"))
    assert main([str(source), str(tmp_path / "other.jsonl")]) == 0


def test_a_line_that_failed_before_is_still_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", line("a"), "nonsense", line("b", temperature=9))
    for said in ("1 answered, 2 failed (", "0 answered, 0 failed, 3 done before (of them 2 failed): "):
        assert main([str(source), str(tmp_path / "out.jsonl")]) == 1
        assert capsys.readouterr().out.startswith(said)
    write(source, line("a"))
    assert main([str(source), str(tmp_path / "out.jsonl")]) == 0


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("no.jsonl", "out.jsonl", "no.jsonl cannot be read: No such file or directory."),
        ("empty.jsonl", "out.jsonl", "empty.jsonl is empty; it needs a request on each line."),
        ("in.jsonl", "in.jsonl", "The results need a file of their own."),
        ("in.jsonl", "no/out.jsonl", "out.jsonl cannot be written: No such file or directory."),
    ],
)
def test_a_batch_that_cannot_be_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, target: str, said: str
) -> None:
    write(tmp_path / "empty.jsonl", "", " ")
    write(tmp_path / "in.jsonl", line("a"))
    assert main([str(tmp_path / source), str(tmp_path / target)]) == 2
    assert capsys.readouterr().err.strip().endswith(said)


def test_a_model_that_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "none"))
    assert main([str(write(tmp_path / "in.jsonl", line("a"))), str(tmp_path / "out.jsonl")]) == 2
    assert "is not a directory; set MODEL_DIR" in capsys.readouterr().err
    assert not os.path.exists(tmp_path / "out.jsonl")
