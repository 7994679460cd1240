"""The demo checkpoint keeps what its card promises, and its corpus holds out what it says it holds out.

Reads `models/demo` with transformers only; nothing here trains, and nothing knows the server.
"""

import re
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.demo_corpus import (
    HELD_OUT_PAIRS,
    HeldOutRequest,
    document_text,
    held_out_documents,
    held_out_requests,
    mentions_held_out_pair,
    training_documents,
)
from tools.demo_grammar import THINGS
from tools.demo_shape import (
    CONTEXT,
    END_OF_TEXT,
    HELD_OUT_DOCUMENTS,
    HELD_OUT_REQUESTS,
    HELD_OUT_SEED,
    HELD_OUT_TASKS,
    IM_END,
    MAX_BYTES,
    SEED,
    SUCCESS_BAR,
    TASKS_BAR,
)
from tools.demo_tasks import FUNCTIONS, held_out_tasks, training_tasks
from tools.train_demo_model import (
    answers_request,
    directory_bytes,
    does_task,
    encode,
    perplexity,
    token_id,
    training_text,
)

DEMO = Path(__file__).parent.parent / "models" / "demo"
SAMPLE = 3000


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(DEMO))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return cast(LlamaForCausalLM, AutoModelForCausalLM.from_pretrained(DEMO))


def card_figure(name: str) -> str:
    """The value of one row in the model card's table."""
    row = re.search(rf"^\| {re.escape(name)} \| (.+) \|$", (DEMO / "README.md").read_text("utf-8"), re.MULTILINE)
    assert row, f"the model card has no row {name!r}"
    return row[1]


def held_out_texts() -> list[str]:
    return [part + END_OF_TEXT for part in (DEMO / "heldout.txt").read_text("utf-8").split(END_OF_TEXT + "\n") if part]


def test_dimensions_are_multiples_of_64_and_weights_are_tied(model: LlamaForCausalLM) -> None:
    for name, weight in model.named_parameters():
        assert all(size % 64 == 0 for size in weight.shape), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.max_position_embeddings == CONTEXT


def test_directory_stays_small_enough_to_commit() -> None:
    assert directory_bytes(DEMO) <= MAX_BYTES


def test_either_end_token_stops_generation(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    expected = [token_id(tokenizer, IM_END), token_id(tokenizer, END_OF_TEXT)]
    assert model.generation_config is not None
    assert model.generation_config.eos_token_id == expected


@pytest.mark.parametrize("request_", held_out_requests(HELD_OUT_SEED, HELD_OUT_REQUESTS)[::40])
def test_held_out_request_gets_the_story_asked_for(
    request_: HeldOutRequest, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    good, answer = answers_request(model, tokenizer, request_)
    assert good, answer


def test_most_held_out_facts_and_calls_are_right_without_a_grammar(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tasks = held_out_tasks(HELD_OUT_SEED, HELD_OUT_TASKS)[:10]
    assert sum(does_task(model, tokenizer, task)[0] for task in tasks) >= TASKS_BAR * len(tasks)


@pytest.mark.parametrize(
    ("row", "count", "bar"),
    [
        ("held-out requests answered", HELD_OUT_REQUESTS, SUCCESS_BAR),
        ("held-out tasks done", HELD_OUT_TASKS, TASKS_BAR),
    ],
)
def test_card_reports_success_above_the_bar(row: str, count: int, bar: float) -> None:
    done, asked = map(int, card_figure(row).split(" of "))
    assert asked == count
    assert done >= bar * asked


@pytest.mark.slow
def test_card_reports_the_perplexity_of_the_committed_weights(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    measured = perplexity(model, tokenizer, held_out_texts())
    assert measured == pytest.approx(float(card_figure("held-out perplexity per token")), rel=1e-3)


def test_chat_is_trained_in_the_form_the_template_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "You are a storyteller."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi!"},
    ]
    prompt = tokenizer.apply_chat_template(messages[:2], add_generation_prompt=True, tokenize=False)
    assert prompt == (
        "<|im_start|>system\nYou are a storyteller.<|im_end|>\n"
        "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    )
    assert training_text(tokenizer, messages) == f"{prompt}Hi!<|im_end|>\n<|endoftext|>"


def test_the_template_tells_of_functions_in_the_system_turn_and_writes_calls_as_hermes_does(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"place": "lake"}}}
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are kind."},
        {"role": "user", "content": "Is it raining by the lake?"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": '{"weather": "sunny"}'},
    ]
    tools: list[Any] = [FUNCTIONS["get_weather"], {"type": "function", "function": {"name": "now", "parameters": {}}}]
    written = '<tool_call>\n{"name": "get_weather", "arguments": {"place": "lake"}}\n</tool_call>'
    assert tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>system\nYou are kind.\nYou can call:\n"
        "get_weather(place): The weather at a place.\nnow()<|im_end|>\n"
        "<|im_start|>user\nIs it raining by the lake?<|im_end|>\n"
        f"<|im_start|>assistant\n{written}\n{written}<|im_end|>\n"
        '<|im_start|>tool\n{"weather": "sunny"}<|im_end|>\n<|im_start|>assistant\n'
    )


def test_template_gives_the_ids_of_the_text_it_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Tell me a story about a fox named Zoë."}]
    text = cast(str, tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == encode(tokenizer, text)


@pytest.mark.parametrize("character", ["ë", "Ł", "🦊", "🐿️", "語"])
def test_multi_byte_characters_are_several_tokens_and_round_trip(
    character: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    ids = encode(tokenizer, character)
    assert len(ids) == len(character.encode())
    assert tokenizer.decode(ids) == character


def test_corpus_is_deterministic() -> None:
    assert list(islice(training_documents(SEED), 50)) == list(islice(training_documents(SEED), 50))
    assert list(islice(training_documents(SEED), 50)) != list(islice(training_documents(SEED + 1), 50))
    assert held_out_requests(HELD_OUT_SEED) == held_out_requests(HELD_OUT_SEED)
    assert list(islice(training_tasks(SEED), 50)) == list(islice(training_tasks(SEED), 50))
    assert held_out_tasks(HELD_OUT_SEED, 10) == held_out_tasks(HELD_OUT_SEED, 10)


def test_training_tasks_mention_no_held_out_pair_and_call_every_function() -> None:
    tasks = list(islice(training_tasks(SEED), SAMPLE // 3))
    assert not [task for task in tasks if mentions_held_out_pair(task.text)]
    called = {
        call["function"]["name"] for task in tasks for said in task.messages for call in said.get("tool_calls", [])
    }
    assert called == FUNCTIONS.keys()
    assert any(said["content"].startswith('{"') for task in tasks for said in task.messages if not task.tools)


def test_training_documents_mention_every_word_but_no_held_out_pair() -> None:
    documents = [document_text(doc).lower() for doc in islice(training_documents(SEED), SAMPLE)]
    words = [set(re.findall(r"[a-z]+", text)) for text in documents]
    assert not [pair for pair, seen in product(HELD_OUT_PAIRS, words) if seen.issuperset(pair)]
    assert set().union(*words).issuperset(THINGS)
    assert set().union(*words).issuperset(animal for animal, _ in HELD_OUT_PAIRS)


def test_held_out_file_holds_the_corpus_held_out_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    documents = list(islice(held_out_documents(HELD_OUT_SEED), HELD_OUT_DOCUMENTS))
    assert held_out_texts() == [training_text(tokenizer, doc) for doc in documents]
    assert {type(doc) for doc in documents} == {str, list}
    assert all(mentions_held_out_pair(document_text(doc)) for doc in documents)
