"""The tokenizer and the chat template against transformers' AutoTokenizer, and checkpoints that lack or break them."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models
from transformers import AutoTokenizer

from api import template_bounds
from api.chat import ChatTemplate, load_chat_template
from api.errors import InvalidRequestError
from api.model import Model
from engines.base import TokenIds
from engines.errors import LoadError
from generation.tokenizer import CONTEXT_TOKENS, LONGEST_WAIT, PIECE, Detokenizer, Tokenizer

HALVES = [95, 107, 119, 131, 167, 179, 225, 249]
"""Tokens of the tiny Llama that are a byte of a character of several: A1, AE, BA, C6, EA, F6, 82, 9A."""
DEMO = Path(__file__).parent.parent / "models" / "demo"


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer of SentencePiece's kind: words with a leading space mark, other characters as bytes."""
    directory = tmp_path_factory.mktemp("byte-fallback")
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁the": 256, "▁fox": 257, "s": 258, "<unk>": 259}
    tokenizer = RustTokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return Tokenizer(directory)


@given(ids=st.lists(st.integers(0, 301), max_size=40))
@settings(max_examples=300, deadline=None)
def test_incremental_text_is_the_whole_text_less_a_half_character(llama: Model, ids: list[int]) -> None:
    detokenizer = Detokenizer(llama.tokenizer, np.empty(0, dtype=np.int64))
    text = "".join(detokenizer.add(token) for token in ids)
    whole = llama.tokenizer.decode(ids)
    assert whole.startswith(text)
    assert text.startswith(whole.rstrip("\ufffd"))


@given(ids=st.lists(st.sampled_from(HALVES), min_size=30, max_size=80))
@settings(max_examples=300, deadline=None)
def test_halves_of_characters_that_never_become_whole_come_out_in_time(llama: Model, ids: list[int]) -> None:
    detokenizer = Detokenizer(llama.tokenizer, np.empty(0, dtype=np.int64))
    text = "".join(detokenizer.add(token) for token in ids)
    whole = llama.tokenizer.decode(ids)
    assert whole.startswith(text)
    assert len(whole) - len(text) <= LONGEST_WAIT + CONTEXT_TOKENS


@pytest.mark.parametrize("token", ["half a character", "special"])
def test_text_that_does_not_come_is_not_decoded_from_its_beginning_each_time(
    llama: Model, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    decode, lengths = llama.tokenizer.decode, []

    def noted(ids: list[int], **options: bool) -> str:
        lengths.append(len(ids))
        return decode(ids, **options)

    monkeypatch.setattr(llama.tokenizer, "decode", noted)
    special = llama.tokenizer.special_id(llama.tokenizer.special_tokens["eos_token"])
    assert special is not None
    detokenizer = Detokenizer(llama.tokenizer, np.array([70]))
    pieces = [detokenizer.add(HALVES[0] if token == "half a character" else special) for _ in range(1000)]
    assert max(lengths, default=0) <= LONGEST_WAIT + CONTEXT_TOKENS
    assert len("".join(pieces)) == pytest.approx(1000 if token == "half a character" else 0, abs=2 * LONGEST_WAIT)
    assert detokenizer.add(71).endswith(decode([71]))


def test_a_replacement_character_that_tokens_spell_out_is_text(llama: Model) -> None:
    for text, kept in (("ok \ufffd", "\ufffd"), ("ok \ufffd\ufffd", "\ufffd\ufffd"), ("ok 日", "")):
        ids = llama.tokenizer.encode(text).tolist()
        detokenizer = Detokenizer(llama.tokenizer, np.empty(0, dtype=np.int64))
        for token in ids if kept else ids[:-1]:
            detokenizer.add(token)
        assert detokenizer.flush() == kept


@given(text=st.text(st.sampled_from("fox é日🦊👩‍👧\u200d"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_byte_fallback_text_arrives_in_whole_characters(byte_fallback: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(byte_fallback, np.array([256]))
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_completion_keeps_the_space_before_its_first_word(byte_fallback: Tokenizer) -> None:
    assert Detokenizer(byte_fallback, np.array([256])).add(257) == " fox"


def test_a_character_that_stands_for_none_does_not_have_the_whole_prompt_decoded(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, lengths = llama.tokenizer.decode, []

    def noted(ids: list[int], **options: bool) -> str:
        lengths.append(len(ids))
        return decode(ids, **options)

    prompt = llama.tokenizer.encode("the quick brown fox " * 50 + "a\ufffdb")
    monkeypatch.setattr(llama.tokenizer, "decode", noted)
    assert Detokenizer(llama.tokenizer, prompt).add(int(llama.tokenizer.encode("c")[0])) == "c"
    assert max(lengths) <= CONTEXT_TOKENS + 1


@given(text=st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_byte_level_vocabulary_round_trips_any_text(llama: Model, text: str) -> None:
    assert llama.tokenizer.decode(llama.tokenizer.encode(text).tolist(), skip_special_tokens=False) == text


def test_token_bytes_join_to_the_text_s_bytes(llama: Model, byte_fallback: Tokenizer) -> None:
    text = "the 🦊 é日"
    ids = llama.tokenizer.encode(text).tolist()
    assert b"".join(llama.tokenizer.token_bytes(token) for token in ids) == text.encode()
    assert byte_fallback.token_bytes(0xE2) == b"\xe2"


@pytest.mark.parametrize("text", ["Once upon a time", " Zoë met a 🦊.\n", "", "<|im_start|>user\nhi<|im_end|>"])
def test_ids_equal_those_of_the_library_s_tokenizer(text: str) -> None:
    oracle = AutoTokenizer.from_pretrained(DEMO)
    assert Tokenizer(DEMO).encode(text).tolist() == oracle(text)["input_ids"]


@given(text=st.text(st.sampled_from("fox é日🦊\n "), min_size=1, max_size=40), times=st.integers(1, 5000))
@settings(max_examples=100, deadline=None)
def test_no_text_that_fits_is_taken_for_too_long(llama: Model, text: str, times: int) -> None:
    long = text * times
    tokens = len(llama.tokenizer.encode(long))
    assert not llama.tokenizer.exceeds(long, tokens)


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        (1000, 0),  # a million characters are more than a thousand tokens can be
        (180_000, 12 * PIECE),
    ],
)
def test_of_a_text_far_too_long_no_more_is_encoded_than_tells_so(
    llama: Model, limit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    whole = Tokenizer.encode

    def recorded(self: Tokenizer, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        encoded.append(len(text))
        return whole(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(Tokenizer, "encode", recorded)
    assert llama.tokenizer.exceeds("x" * 1_000_000, limit)
    assert sum(encoded) <= most


def test_other_threads_run_while_a_text_is_encoded(llama: Model) -> None:
    encoded = threading.Event()

    def encode() -> None:
        llama.tokenizer.encode("the fox " * 100_000)
        encoded.set()

    thread = threading.Thread(target=encode)
    thread.start()
    turns = 0
    while not encoded.is_set():
        turns += 1
        time.sleep(0.001)
    thread.join()
    assert turns > 20


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Tell me a story about a fox and a river."}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {{ 7 * 7 }} 🦊"}],
        [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b"), ("user", "c\n\n")]],
    ],
)
def test_chat_prompts_equal_those_of_the_library_s_tokenizer(messages: list[dict[str, str]]) -> None:
    oracle = AutoTokenizer.from_pretrained(DEMO)
    template = load_chat_template(DEMO, Tokenizer(DEMO).special_tokens)
    assert template is not None
    assert template.render(messages) == oracle.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


FEATURES = """{%- for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}
    {%- if m.role == 'x' %}{{ raise_exception('no x, please') }}{% endif %}
    {%- generation %}{{ bos_token + m.role }}:{{ m | tojson }}{% endgeneration %}
{% endfor %}{{ strftime_now('%Y') | length }}{% if add_generation_prompt %}>{% endif %}"""


def test_templates_find_what_the_library_gives_them(tmp_path: Path) -> None:
    messages = [{"role": role, "content": "ü<>&'"} for role in "abcdef"]
    oracle = AutoTokenizer.from_pretrained(DEMO)
    oracle.bos_token = "<s>"
    expected = oracle.apply_chat_template(messages, chat_template=FEATURES, tokenize=False, add_generation_prompt=True)
    assert ChatTemplate(FEATURES, {"bos_token": "<s>"}).render(messages) == expected


def test_a_template_s_own_refusal_reaches_the_caller() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ChatTemplate(FEATURES, {"bos_token": ""}).render([{"role": "x", "content": ""}])
    assert caught.value.message == "The model's chat template refuses these messages: no x, please"
    assert str(caught.value) == "The model's chat template refuses these messages."  # what a log may show


@pytest.mark.parametrize("attack", ["{{ ''.__class__.__mro__ }}", "{% set _ = messages.append(1) %}"])
def test_templates_run_in_a_sandbox(attack: str) -> None:
    with pytest.raises(InvalidRequestError, match="refuses"):
        ChatTemplate(attack, {}).render([{"role": "user", "content": "x"}])


ENDLESS = {
    "a product": '{{ "x" * 10**10 }}',
    "a power": "{{ 9**9**9 }}",
    "doubling": '{% set ns = namespace(x="xy") %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}',
    "doubling by ~": '{% set ns = namespace(x="xy") %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}',
    "a list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "a width": '{{ "x".ljust(10**10) }}',
    "a filter's width": '{{ "x"|center(10000000000) }}',
    "output": '{% set x = "x" * 10**6 %}{% for i in range(99999) %}{{ x }}{% endfor %}',
    "a block": '{% set x = "x" * 10**6 %}{% set y %}{% for i in range(99999) %}{{ x }}{% endfor %}{% endset %}',
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops over messages": "{% for a in m %}" * 9 + "{% endfor %}" * 9,
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_can_neither_run_nor_grow_without_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_bounds, "SECONDS", 0.5)
    template = ChatTemplate("{% set m = messages * 20 %}" + ENDLESS[name], {})
    with pytest.raises(InvalidRequestError, match="refuses these messages"):
        template.render([{"role": "user", "content": "x"}])


def test_a_megabyte_of_messages_is_within_a_template_s_bounds() -> None:
    template = load_chat_template(DEMO, {})
    assert template is not None
    few = [{"role": role, "content": "x" * 500_000} for role in ("user", "assistant", "user")]
    many = [{"role": role, "content": "x" * 5} for role in ("user", "assistant")] * 10_000 + few[:1]
    for messages in (few, many):
        assert len(template.render(messages)) > sum(len(message["content"]) for message in messages)


def test_templates_are_found_where_older_checkpoints_keep_them(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    for stored, expected in (("plain", "plain"), (named, "yes"), (None, None)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stored}))
        template = load_chat_template(tmp_path, {})
        assert (template.render([]) if template else None) == expected


def test_a_missing_or_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"tokenizer\.json is missing; write it with"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(LoadError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer(tmp_path)
