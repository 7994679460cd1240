"""Train the demo checkpoint: `python -m tools.train_demo_model [OUT_DIR]`, default `models/demo`.

Trains a byte-level BPE tokenizer and a small Llama on the stories of `tools.demo_corpus`, then goes on with the tasks
of `tools.demo_tasks` among them, at last with the loss of the answers alone, measures the result on held-out
documents, requests and tasks, and writes everything in Hugging Face format, model card included. The card's figures
are the ones this run measured, except for its table of other precisions, which `python -m benchmarks fidelity`
measures and `python -m benchmarks report` fills in. Reproducible from the seeds on one machine with the same library
versions.

It must not know how the model is served: transformers is the only reader it checks against.
"""

import argparse
import json
import math
import platform
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.demo_card import Measured, Trained, model_card
from tools.demo_corpus import (
    Document,
    HeldOutRequest,
    held_out_documents,
    held_out_requests,
    training_documents,
)
from tools.demo_shape import (
    ANSWERS_SEED,
    CONTEXT,
    END_OF_TEXT,
    HEAD_SIZE,
    HEADS,
    HELD_OUT_DOCUMENTS,
    HELD_OUT_REQUESTS,
    HELD_OUT_SEED,
    HELD_OUT_TASKS,
    HIDDEN_SIZE,
    IM_END,
    IM_START,
    INTERMEDIATE_SIZE,
    KEY_VALUE_HEADS,
    LAYERS,
    MAX_BYTES,
    MAX_NEW_TOKENS,
    SEED,
    SPECIAL_TOKENS,
    SUCCESS_BAR,
    TASKS_BAR,
    TASKS_SEED,
    VOCAB_SIZE,
)
from tools.demo_tasks import HeldOutTask, Task, held_out_tasks, training_tasks

BATCH = 4
WEIGHT_DECAY = 0.1
STORIES_AMONG_TASKS = 0.3
NOT_COUNTED = -100
"""What transformers takes for a token whose loss does not count."""
TOKENIZER_DOCUMENTS = 20_000

CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\\n' }}{% endif %}"
    "You can call:"
    "{% for tool in tools %}{% set function = tool['function'] %}"
    "{{ '\\n' + function['name'] + '(' + (function['parameters']['properties'] | join(', ')) + ')' }}"
    "{{ ': ' + function['description'] if function['description'] }}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{% if not (tools and loop.first and message['role'] == 'system') %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '\\n' if message['content'] or not loop.first }}"
    "{{ '<tool_call>\\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{% set arguments = call['function']['arguments'] %}"
    "{{ (arguments if arguments is string else arguments | tojson) + '}\\n</tool_call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Functions are told of in the system turn, each in a line; calls are written as Hermes writes them."""


@dataclass(frozen=True)
class Stage:
    """A part of the training, with its own optimizer."""

    documents: Callable[[], Iterator[Document | Task]]
    threads: int
    steps: int
    warmup_steps: int
    peak_learning_rate: float
    answers_only: bool = False
    """Whether only what the assistant says counts in the loss, of what is a chat."""

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to zero at the last step."""
        if step < self.warmup_steps:
            return self.peak_learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return self.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def tasks_and_stories(seed: int) -> Iterator[Document | Task]:
    """Endless training tasks, with other stories than the first stage's among them, so that none is unlearned."""
    rng = random.Random(seed)
    stories, tasks = training_documents(seed), training_tasks(seed)
    while True:
        yield next(stories) if rng.random() < STORIES_AMONG_TASKS else next(tasks)


STORIES = Stage(lambda: training_documents(SEED), threads=2, steps=4000, warmup_steps=200, peak_learning_rate=2e-3)
TASKS = Stage(lambda: tasks_and_stories(TASKS_SEED), threads=1, steps=1500, warmup_steps=50, peak_learning_rate=2e-3)
ANSWERS = Stage(
    lambda: tasks_and_stories(ANSWERS_SEED),
    answers_only=True,
    threads=1,
    steps=600,
    warmup_steps=30,
    peak_learning_rate=1.5e-3,
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges are learnt from the corpus's ASCII only.

    Every multi-byte character therefore stays a run of byte tokens, the hard case for streamed text, and any
    UTF-8 still round-trips.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        content.encode("ascii", "ignore").decode()
        for doc in islice(training_documents(SEED), TOKENIZER_DOCUMENTS)
        for content in ([doc] if isinstance(doc, str) else [f"{m['role']}\n{m['content']}" for m in doc])
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {VOCAB_SIZE}")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[IM_START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def training_text(tokenizer: PreTrainedTokenizerFast, doc: Document | Task) -> str:
    """What the model reads of a document: a chat as the template renders it, then the end-of-text mark."""
    if isinstance(doc, str):
        return doc + END_OF_TEXT
    messages, tools = (doc.messages, doc.tools) if isinstance(doc, Task) else (doc, list[Any]())
    return cast(str, tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False)) + END_OF_TEXT


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return cast(int, tokenizer.convert_tokens_to_ids(token))


def batches(tokenizer: PreTrainedTokenizerFast, stage: Stage) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless `ids [BATCH, CONTEXT]` and, of the same shape, those that count.

    Each row starts with a fresh document, as every prompt will; the last one of a row is cut, since new text costs
    nothing.
    """
    documents = stage.documents()
    while True:
        rows, counted = [], []
        for _ in range(BATCH):
            row: list[int] = []
            counts: list[int] = []
            while len(row) < CONTEXT:
                document = next(documents)
                ids = encode(tokenizer, training_text(tokenizer, document))
                row += ids
                counts += said(tokenizer, ids) if stage.answers_only and not isinstance(document, str) else ids
            rows.append(row[:CONTEXT])
            counted.append(counts[:CONTEXT])
        yield torch.tensor(rows), torch.tensor(counted)


def said(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    """A chat's ids, but for NOT_COUNTED where the assistant does not speak."""
    opening, im_end = encode(tokenizer, IM_START + "assistant\n"), token_id(tokenizer, IM_END)
    counted = [NOT_COUNTED] * len(ids)
    for start in (i for i in range(len(ids)) if ids[i : i + len(opening)] == opening):
        begin = start + len(opening)
        end = ids.index(im_end, begin) + 1
        counted[begin:end] = ids[begin:end]
    return counted


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained network; every matrix dimension is a multiple of 64, as quantised kernels like it."""
    end_of_text, im_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, IM_END)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=INTERMEDIATE_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=HEAD_SIZE,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=end_of_text,
        eos_token_id=im_end,
        pad_token_id=end_of_text,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=end_of_text, eos_token_id=[im_end, end_of_text], pad_token_id=end_of_text
    )
    return model


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stage: Stage) -> Trained:
    """Train in place on the loss of the stage's tokens."""
    started = time.perf_counter()
    torch.set_num_threads(stage.threads)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    model.train()
    smoothed = math.log(VOCAB_SIZE)
    steps = islice(batches(tokenizer, stage), stage.steps)
    progress = tqdm(steps, total=stage.steps, desc="train", unit="step", mininterval=5)
    for step, (ids, counted) in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate(step)
        loss = model(input_ids=ids, labels=counted, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smoothed += 0.02 * (loss.item() - smoothed)
        progress.set_postfix(loss=f"{smoothed:.3f}", refresh=False)
    model.train(False)
    return Trained(stage.steps, stage.steps * BATCH * CONTEXT, smoothed, time.perf_counter() - started)


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """exp of the mean negative log-likelihood per token, each text alone and from its second token on."""
    total, count = 0.0, 0
    for text in tqdm(texts, desc="perplexity", unit="text"):
        ids = torch.tensor([encode(tokenizer, text)[:CONTEXT]])
        targets = ids.shape[1] - 1
        total += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * targets
        count += targets
    return math.exp(total / count)


def answer_to(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    messages: list[dict[str, Any]],
    tools: list[Any] | None = None,
) -> tuple[bool, str]:
    """Whether the greedy answer ends by itself, and that answer."""
    prompt = tokenizer.apply_chat_template(messages, tools=tools or None, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([encode(tokenizer, cast(str, prompt))])
    # transformers types `generate` for a protocol that its own models do not satisfy under mypy.
    output: torch.Tensor = cast(Any, model).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
    )
    new_ids = output[0, ids.shape[1] :].tolist()
    return new_ids[-1] == token_id(tokenizer, IM_END), cast(str, tokenizer.decode(new_ids, skip_special_tokens=True))


def answers_request(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, request: HeldOutRequest
) -> tuple[bool, str]:
    """Whether the greedy answer contains all that was asked for and ends by itself, and that answer."""
    ended, answer = answer_to(model, tokenizer, request.messages)
    said = all(word.lower() in answer.lower() for word in request.must_contain)
    return ended and said, answer


def does_task(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: HeldOutTask) -> tuple[bool, str]:
    """Whether the greedy answer, which no grammar holds, is the facts or the calls that are right, and that answer."""
    ended, answer = answer_to(model, tokenizer, held_out.task.messages, held_out.task.tools)
    try:
        if held_out.facts is not None:
            return ended and json.loads(answer) == held_out.facts, answer
        calls = [json.loads(call) for call in re.findall(r"<tool_call>\n(.*)\n</tool_call>", answer)]
        return ended and [(call["name"], call["arguments"]) for call in calls] == held_out.calls, answer
    except (ValueError, LookupError, TypeError):
        return False, answer


def held_out_file(texts: list[str]) -> str:
    return "".join(text + "\n" for text in texts)


def directory_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def main(out_dir: Path) -> None:
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    stories = train(model, tokenizer, STORIES)
    tasks = train(model, tokenizer, TASKS)
    answers = train(model, tokenizer, ANSWERS)
    finish(model, tokenizer, (stories, tasks, answers), out_dir)


def finish(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, stages: tuple[Trained, ...], out_dir: Path
) -> None:
    """Write a trained model, measure it, write its card. SystemExit where it does too little or is too large."""
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)
    # safetensors writes for the owner only; an image built from here is read by another user.
    (out_dir / "model.safetensors").chmod(0o644)

    documents = islice(held_out_documents(HELD_OUT_SEED), HELD_OUT_DOCUMENTS)
    texts = [training_text(tokenizer, doc) for doc in documents]
    (out_dir / "heldout.txt").write_text(held_out_file(texts), encoding="utf-8")

    requests = held_out_requests(HELD_OUT_SEED, HELD_OUT_REQUESTS)
    results = [answers_request(model, tokenizer, r) for r in tqdm(requests, desc="requests", unit="request")]
    for request, (good, answer) in zip(requests, results, strict=True):
        if not good:
            print(f"missed {request.must_contain}: {request.messages[-1]['content']} -> {answer}")
    held_out = held_out_tasks(HELD_OUT_SEED, HELD_OUT_TASKS)
    done = [does_task(model, tokenizer, t) for t in tqdm(held_out, desc="tasks", unit="task")]
    for task, (good, answer) in zip(held_out, done, strict=True):
        if not good:
            print(f"missed {task.facts or task.calls}: {task.task.messages[-1]['content']} -> {answer}")

    measured = Measured(
        parameters=model.num_parameters(),
        machine=f"{platform.machine()}, {STORIES.threads} threads for stories, else {TASKS.threads}",
        libraries=f"transformers {transformers.__version__}, torch {torch.__version__}",
        stages=stages,
        perplexity=perplexity(model, tokenizer, texts),
        held_out_texts=len(texts),
        answered=sum(good for good, _ in results),
        asked=len(results),
        done=sum(good for good, _ in done),
        to_do=len(done),
        story=(requests[0].messages[-1]["content"], results[0][1]),
        facts=(held_out[0].task.messages[-1]["content"], done[0][1]),
        call=(held_out[1].task.messages[-1]["content"], done[1][1]),
    )
    (out_dir / "README.md").write_text(model_card(measured), encoding="utf-8")
    print(measured, f"{directory_bytes(out_dir):,} bytes")
    if measured.answered < SUCCESS_BAR * measured.asked or measured.done < TASKS_BAR * measured.to_do:
        raise SystemExit(
            f"only {measured.answered} of {measured.asked} requests and {measured.done} of {measured.to_do} tasks"
        )
    if directory_bytes(out_dir) > MAX_BYTES:
        raise SystemExit(f"{out_dir} holds {directory_bytes(out_dir):,} bytes, more than {MAX_BYTES:,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tools.train_demo_model", description="Train the demo checkpoint.")
    parser.add_argument("out", metavar="OUT_DIR", nargs="?", type=Path, default=Path("models/demo"))
    main(parser.parse_args().out)
