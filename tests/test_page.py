"""The page at `/`: what it may do, what it says without a key, and a real Chromium that chats with it."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from api.keys import ApiKeys
from api.page import FILE
from settings import ROOT
from tests.checkpoints import make_checkpoint
from tests.chromium import COMMAND, Page
from tests.deterministic_engine import CHAT_TEMPLATE
from tests.running_server import wait_until
from tests.test_server import Bench
from tools.gateway import Gateway
from tools.local_function import LocalFunction

HTML = FILE.read_text(encoding="utf-8")
Test = TypeVar("Test", bound=Callable[..., Any])


def in_a_browser(test: Test) -> Test:
    """A test for which a browser starts."""
    pytest.mark.skipif(COMMAND is None, reason="no Chromium here; Debian's package is `chromium`")(test)
    pytest.mark.slow(test)
    return test


def digest(tag: str) -> str:
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", HTML, flags=re.DOTALL)
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_page_may_run_and_reach_nothing_but_itself_and_its_server(llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        answer = bench.client.get("/")
    assert answer.text == HTML
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'sha256-{digest('script')}'"
    assert policy["style-src"] == f"'sha256-{digest('style')}'"
    assert policy["connect-src"] == "'self'"
    assert not re.findall(r"https?://|//[a-z]|innerHTML|\bon\w+=|style=", HTML)


def test_with_keys_the_page_is_open_and_says_nothing_of_the_deployment(llama_directory: Path) -> None:
    with Bench(llama_directory, keys=ApiKeys(["the-key"])) as bench:
        assert bench.client.get("/").text == HTML
        assert bench.client.get("/ready").status_code == 401
    assert "deterministic" not in HTML


def test_one_setting_takes_the_page_away(llama_directory: Path) -> None:
    with Bench(llama_directory, page=False) as bench:
        answer = bench.client.get("/")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with Page() as page:
        yield page


def ask(page: Page, text: str) -> None:
    page.fill("#message", text)
    page.click("#send")


def wait_for_the_end(page: Page, turns: int) -> None:
    page.wait_for(f"document.querySelectorAll('article.assistant .sizes').length === {turns}")


def history(page: Page) -> list[list[str]]:
    """Role and content of what a next question is sent after."""
    messages: list[list[str]] = page.run("messages.map(({ role, content }) => [role, content])")
    return messages


def turns(page: Page) -> int:
    """How many questions and answers a reader sees."""
    count: int = page.run("document.querySelectorAll('article').length")
    return count


def wait_for_a_refusal(page: Page, words: str) -> None:
    page.wait_for(f"document.querySelector('#fault').textContent.includes({json.dumps(words)})")
    page.wait_for("!document.querySelector('#send').disabled")


@in_a_browser
def test_a_browser_chats_with_the_server(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory, stepped=True) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        assert page.text("#model") == "deterministic"
        page.fill("#tokens", "8")
        ask(page, "hello")
        bench.steps.allow(4)
        page.wait_for("document.querySelector('.said').textContent.length > 0")
        assert page.text("#stop") == "Stop"
        assert not page.text(".sizes"), "the answer is not complete"
        bench.steps.open()
        wait_for_the_end(page, 1)
        assert re.search(r"\d+ tokens in, 8 out, [\d.]+ tokens per second\. The answer was cut\.", page.text(".sizes"))
        rows = [row.split("\t")[0].strip() for row in page.text("table").splitlines()]
        assert [row for row in rows if row] == ["queue", "prefill", "decode"]
        assert page.run("[...document.querySelectorAll('.bar div')].some((bar) => bar.offsetWidth > 100)")
        ask(page, "and more")
        wait_for_the_end(page, 2)
        assert page.complaints == []


@in_a_browser
def test_a_browser_gets_an_answer_in_the_shape_of_a_schema(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#schema", '{"enum": ["<b>fox</b>"]}')
        ask(page, "hello")
        wait_for_the_end(page, 1)
        assert page.text(".said") == '"<b>fox</b>"'
        page.fill("#schema", "{")
        ask(page, "hello")
        page.wait_for("document.querySelector('#fault').textContent")
        assert page.text("#fault") == "The schema is not valid JSON."
        page.fill("#schema", '{"not": {}}')
        ask(page, "hello")
        page.wait_for("document.querySelector('#fault').textContent.includes('cannot be followed')")
        assert len(page.complaints) == 1, "the browser's own note of the 400"
        page.complaints.clear()


@in_a_browser
def test_a_browser_sees_a_call_answers_it_and_is_told_what_comes_of_it(page: Page) -> None:
    tools = json.loads((ROOT / "events" / "tool-call.json").read_text())["tools"]
    with (
        LocalFunction({"STREAMING_DOORS": "function-url"}) as function,
        Gateway(function.start, "function-url") as gateway,
    ):
        page.open(gateway.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tools", json.dumps(tools))
        page.fill("#temperature", "0")
        ask(page, "Send a letter to the hedgehog in the barn.")
        wait_for_the_end(page, 1)
        assert page.text("article.assistant pre") == ('send_letter({"animal": "the hedgehog", "place": "the barn"})')
        page.fill(".results input", '{"days": 4}')
        page.click(".results button")
        wait_for_the_end(page, 2)
        assert page.run("document.querySelectorAll('.said')[1].textContent") == (
            "The hedgehog will have the letter in 4 days."
        )
        assert page.complaints == []


@in_a_browser
def test_a_new_chat_has_nothing_of_the_answer_it_interrupts(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory, stepped=True) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "8")
        ask(page, "hello")
        bench.steps.allow(4)
        page.wait_for("document.querySelector('.said').textContent.length > 0")
        page.click("#clear")
        page.wait_for("!document.querySelector('#send').disabled")
        assert (history(page), turns(page), page.text("#message")) == ([], 0, "")
        bench.steps.open()
        ask(page, "something else")
        wait_for_the_end(page, 1)
        said = page.run("document.querySelector('.said').textContent")
        assert history(page) == [["user", "something else"], ["assistant", said]]
        assert page.complaints == []


@in_a_browser
def test_a_question_that_is_refused_goes_back_into_the_box(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "8")
        ask(page, "hello")
        wait_for_the_end(page, 1)
        before = history(page)
        too_long = "fox " * 1000
        ask(page, too_long)
        wait_for_a_refusal(page, "tokens")
        assert page.run("document.querySelector('#message').value") == too_long
        assert (history(page), turns(page)) == (before, 2)
        page.fill("#schema", "{")
        ask(page, "and more")
        wait_for_a_refusal(page, "not valid JSON")
        assert page.run("document.querySelector('#message').value") == "and more"
        assert (history(page), turns(page)) == (before, 2)
        page.fill("#schema", "")
        page.click("#send")
        wait_for_the_end(page, 2)
        assert [role for role, _ in history(page)] == ["user", "assistant"] * 2
        assert history(page)[2] == ["user", "and more"]
        assert page.text("#fault") == ""
        assert len(page.complaints) == 1, "the browser's own note of the 400"
        page.complaints.clear()


@in_a_browser
def test_a_question_that_is_stopped_before_its_answer_goes_back_into_the_box(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory, stepped=True) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "8")
        ask(page, "hello")
        wait_until(lambda: bench.steps.waiting == 1, "a forward pass is under way")
        page.fill("#message", "and what I typed meanwhile")
        page.click("#stop")
        page.wait_for("!document.querySelector('#send').disabled")
        assert page.run("document.querySelector('#message').value") == "hello\nand what I typed meanwhile"
        assert (history(page), turns(page), page.text("#fault")) == ([], 0, "")
        bench.steps.open()
        page.click("#send")
        wait_for_the_end(page, 1)
        assert [role for role, _ in history(page)] == ["user", "assistant"]
        assert page.complaints == []


@in_a_browser
def test_enter_that_ends_a_composition_sends_nothing(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "8")
        page.run("document.querySelector('#message').focus()")
        page.compose("にほん")
        page.press_enter()
        assert turns(page) == 0
        page.run("document.querySelector('#message').value = ''")
        page.compose("にほん")
        page.finish("日本")
        assert turns(page) == 0
        page.press_enter()
        wait_for_the_end(page, 1)
        assert history(page)[0] == ["user", "日本"]
        assert page.complaints == []


@in_a_browser
def test_a_browser_is_asked_for_the_key(page: Page, llama_directory: Path) -> None:
    with Bench(llama_directory, keys=ApiKeys(["the-key"])) as bench:
        page.open(bench.url)
        page.wait_for("!document.querySelector('#door').hidden")
        assert "deterministic" not in page.run("document.body.innerText")
        page.fill("#key", "another")
        page.click("#door button")
        page.wait_for("document.querySelector('#fault').textContent")
        assert page.text("#fault") == "Incorrect API key provided."
        page.fill("#key", "the-key")
        page.click("#door button")
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "2")
        ask(page, "hello")
        wait_for_the_end(page, 1)
        assert page.run("document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)") == ""
        page.complaints.clear()  # the refusals


@in_a_browser
def test_a_call_is_answered_later_or_not_at_all(page: Page) -> None:
    tools = json.loads((ROOT / "events" / "tool-call.json").read_text())["tools"]
    call = 'send_letter({"animal": "the hedgehog", "place": "the barn"})'
    too_long = "fox " * 3000
    with (
        LocalFunction({"STREAMING_DOORS": "function-url"}) as function,
        Gateway(function.start, "function-url") as gateway,
    ):
        page.open(gateway.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tools", json.dumps(tools))
        page.fill("#temperature", "0")
        ask(page, "Send a letter to the hedgehog in the barn.")
        wait_for_the_end(page, 1)
        page.fill(".results input", too_long)
        page.click(".results button")
        wait_for_a_refusal(page, "tokens")
        assert page.run("document.querySelector('.results input').value") == too_long
        page.fill(".results input", '{"days": 4}')
        ask(page, too_long)
        wait_for_a_refusal(page, "tokens")
        assert page.run("document.querySelector('article.assistant > .results input').value") == '{"days": 4}'
        assert [role for role, _ in history(page)] == ["user", "assistant"]
        assert page.run("messages[1].tool_calls.length") == 1
        ask(page, "Tell me a story about a fox.")
        assert page.run("running !== null && !document.querySelector('.results')"), "no results beside an answer"
        wait_for_the_end(page, 2)
        assert [role for role, _ in history(page)] == ["user", "assistant"] * 2
        assert history(page)[1] == ["assistant", call]
        assert not page.run("'tool_calls' in messages[1]"), "a call without a result is one no more"
        assert page.text("#fault") == ""
        assert len(page.complaints) == 2, "the browser's own notes of the 400s"
        page.complaints.clear()


@in_a_browser
def test_a_browser_sees_the_cold_start_behind_the_gateway(page: Page, tmp_path: Path) -> None:
    (make_checkpoint(tmp_path / "tiny") / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    with (
        LocalFunction({"MODEL_DIR": str(tmp_path / "tiny"), "STREAMING_DOORS": "function-url"}) as function,
        Gateway(function.start, "function-url") as gateway,
    ):
        page.open(gateway.url)
        page.wait_for("!document.querySelector('#room').hidden")
        page.fill("#tokens", "5")
        ask(page, "hello")
        wait_for_the_end(page, 1)
        assert "5 out" in page.text(".sizes")
        assert "start: weights" in page.text("table")
        ask(page, "and more")
        wait_for_the_end(page, 2)
        assert "start:" not in page.text("table")
        assert page.complaints == []
