"""Prompt files of the compiler: where the caller's part begins, and the one sentence for a file that is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from compiler import prompt_files
from compiler.errors import CompileError
from compiler.prompt_files import Prompt
from generation.tokenizer import Tokenizer
from tests.checkpoints import CONTEXT, write_tokenizer
from tests.deterministic_engine import CHAT_TEMPLATE

SYSTEM = {"role": "system", "content": "answer in one word"}
DATED = "{{ strftime_now('%d %B %Y') }} " + CHAT_TEMPLATE
DATED_LAST = "{{ messages[0].content }} {{ strftime_now('%Y') }}" + CHAT_TEMPLATE


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What is read of one: its tokenizer and its chat template."""
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return tmp_path


def read(checkpoint: Path, content: str | bytes | Any, name: str = "prompt.json", context: int = CONTEXT) -> Prompt:
    path = checkpoint / name
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (prompt,) = prompt_files.read([path], checkpoint, context)
    return prompt


def text_of(checkpoint: Path, prompt: Prompt) -> str:
    return Tokenizer(checkpoint).decode(prompt.common.tolist())


def test_no_files_are_no_prompts(tmp_path: Path) -> None:
    assert prompt_files.read([], tmp_path, CONTEXT) == []


@pytest.mark.parametrize("content", [[SYSTEM], {"messages": [SYSTEM]}, {"messages": [SYSTEM], "tools": []}])
def test_a_chat_goes_up_to_where_the_callers_text_begins(checkpoint: Path, content: Any) -> None:
    prompt = read(checkpoint, content)
    assert text_of(checkpoint, prompt) == "system: answer in one word\nuser:"
    assert prompt.common.tolist() == prompt.sample[: len(prompt.common)].tolist()


def test_a_token_that_is_joined_with_the_callers_text_is_not_the_prompts(checkpoint: Path) -> None:
    text = "answers of one single word only: "
    prompt = read(checkpoint, text, "prompt.txt")
    encoded = Tokenizer(checkpoint).encode(text)
    assert len(prompt.common) == len(encoded) - 1
    assert text_of(checkpoint, prompt) == text.rstrip()


@pytest.mark.parametrize(("length", "stored"), [(16, 16), (17, 16), (31, 16), (32, 32)])
def test_whole_pages_are_stored(checkpoint: Path, length: int, stored: int) -> None:
    prompt = read(checkpoint, "0" * length, "prompt.txt")
    assert (len(prompt.common), len(prompt.ids)) == (length, stored)


def test_what_comes_after_the_days_date_changes_with_it(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text(DATED_LAST)
    prompt = read(checkpoint, [SYSTEM])
    assert text_of(checkpoint, prompt).rstrip("0123456789") == f"{SYSTEM['content']} "


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "0" * 15, "a.txt has 15 tokens before the caller's part, and only whole pages of 16 are stored."),
        ("a.txt", "", "a.txt has 0 tokens before the caller's part"),
        ("a.txt", "0" * 600, "a.txt has 600 tokens, and of the context of 640 at least 64 must be left."),
        ("a.txt", b"\xff\xfe", "a.txt is not text in UTF-8."),
        ("a.json", "{", "a.json is not JSON (Expecting property name"),
        ("a.json", "[" * 100_000, "a.json is not JSON ("),
        ("a.json", '"text"', 'a.json is neither a list of chat messages nor an object with "messages".'),
        ("a.json", "{}", 'a.json is neither a list of chat messages nor an object with "messages".'),
        ("a.json", {"messages": [SYSTEM], "model": "x"}, "a.json has a field 'model'; the fields of a prompt are"),
        ("a.json", [{"role": "robot", "content": "x"}], "a.json cannot begin a request: 'messages[0].role' must be"),
        ("a.json", [{"role": "user"}], "a.json cannot begin a request: 'messages[0].content' is required."),
        (
            "a.json",
            {"messages": [SYSTEM], "tools": [{}]},
            "a.json cannot begin a request: 'tools[0].type' is required.",
        ),
    ],
)
def test_a_file_that_is_no_prompt(checkpoint: Path, name: str, content: Any, said: str) -> None:
    with pytest.raises(CompileError) as refused:
        read(checkpoint, content, name)
    assert said in str(refused.value)
    assert str(refused.value).endswith(".")


def test_messages_that_the_template_refuses(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ raise_exception('Two users in a row.') }}")
    with pytest.raises(CompileError, match="cannot begin a request: The model's chat template refuses these messages"):
        read(checkpoint, [SYSTEM])


def test_a_date_before_everything_leaves_nothing_to_store(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text(DATED)
    with pytest.raises(CompileError, match="tokens before the caller's part, and only whole pages of 16"):
        read(checkpoint, [SYSTEM])


def test_messages_for_a_checkpoint_without_a_chat_template(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    with pytest.raises(CompileError, match=r"holds chat messages, and the checkpoint has no chat template\.$"):
        read(checkpoint, [SYSTEM])
