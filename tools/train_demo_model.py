"""Train the demo checkpoint: `python -m tools.train_demo_model [OUT_DIR]`, default `models/demo`.

Trains a byte-level BPE tokenizer and a small Llama on `tools.demo_corpus`, measures the result on held-out
documents and requests, and writes everything in Hugging Face format, model card included. The card's figures
are the ones this run measured, except for its table of other precisions, which `python -m benchmarks fidelity`
measures and `python -m benchmarks report` fills in. Reproducible from SEED on one machine with the same library
versions.

It must not know how the model is served: transformers is the only reader it checks against.
"""

import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.demo_corpus import (
    Document,
    HeldOutRequest,
    held_out_documents,
    held_out_requests,
    training_documents,
)

SEED = 20
HELD_OUT_SEED = 21
THREADS = 2

VOCAB_SIZE = 1536
CONTEXT = 512
BATCH = 4
STEPS = 4000
WARMUP_STEPS = 200
PEAK_LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1

TOKENIZER_DOCUMENTS = 20_000
HELD_OUT_DOCUMENTS = 100
HELD_OUT_REQUESTS = 200
MAX_NEW_TOKENS = 200

SUCCESS_BAR = 0.95
MAX_BYTES = 8_000_000

END_OF_TEXT, IM_START, IM_END = SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
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


def training_text(tokenizer: PreTrainedTokenizerFast, doc: Document) -> str:
    """What the model reads of a document: a chat as the template renders it, then the end-of-text mark."""
    if isinstance(doc, str):
        return doc + END_OF_TEXT
    return cast(str, tokenizer.apply_chat_template(doc, tokenize=False)) + END_OF_TEXT


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return cast(list[int], tokenizer(text, add_special_tokens=False)["input_ids"])


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return cast(int, tokenizer.convert_tokens_to_ids(token))


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Endless `ids [BATCH, CONTEXT]`. Each row starts with a fresh document, as every prompt will; the last
    document of a row is cut, since new text costs nothing."""
    documents = training_documents(SEED)
    while True:
        rows = []
        for _ in range(BATCH):
            row: list[int] = []
            while len(row) < CONTEXT:
                row += encode(tokenizer, training_text(tokenizer, next(documents)))
            rows.append(row[:CONTEXT])
        yield torch.tensor(rows)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained network; every matrix dimension is a multiple of 64, as quantised kernels like it."""
    end_of_text, im_end = token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, IM_END)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
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


def learning_rate(step: int) -> float:
    """Linear warm-up, then a cosine down to zero at STEPS."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / (STEPS - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * progress))


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Train in place on the loss of every token, requests included; returns the smoothed final loss."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    norms = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    model.train()
    smoothed = math.log(VOCAB_SIZE)
    progress = tqdm(islice(batches(tokenizer), STEPS), total=STEPS, desc="train", unit="step", mininterval=5)
    for step, ids in enumerate(progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        smoothed += 0.02 * (loss.item() - smoothed)
        progress.set_postfix(loss=f"{smoothed:.3f}", refresh=False)
    model.train(False)
    return smoothed


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


def answers_request(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, request: HeldOutRequest
) -> tuple[bool, str]:
    """Whether the greedy answer contains all that was asked for and ends by itself, and that answer."""
    prompt = cast(str, tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False))
    ids = torch.tensor([encode(tokenizer, prompt)])
    # transformers types `generate` for a protocol that its own models do not satisfy under mypy.
    output: torch.Tensor = cast(Any, model).generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
    )
    new_ids = output[0, ids.shape[1] :].tolist()
    answer = cast(str, tokenizer.decode(new_ids, skip_special_tokens=True))
    ended = new_ids[-1] == token_id(tokenizer, IM_END)
    said = all(word.lower() in answer.lower() for word in request.must_contain)
    return ended and said, answer


def split_held_out(text: str) -> list[str]:
    """The documents of `heldout.txt`, each with its end-of-text mark; the inverse of `held_out_file`."""
    return [part + END_OF_TEXT for part in text.split(END_OF_TEXT + "\n") if part]


def held_out_file(texts: list[str]) -> str:
    return "".join(text + "\n" for text in texts)


@dataclass(frozen=True)
class Measured:
    """What one run found out about the model it trained; times in seconds."""

    parameters: int
    loss: float
    train_seconds: float
    perplexity: float
    held_out_texts: int
    answered: int
    example: tuple[str, str]


def model_card(measured: Measured) -> str:
    tokens = STEPS * BATCH * CONTEXT
    request, answer = measured.example
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Demo story model

A tiny causal language model that tells short animal stories when asked in chat, and continues plain ones. It
exists so that a server for Hugging Face checkpoints can be run, tested and measured with no download: the
format, the chat template and the tokenizer are those of a real model, only the size is not.
Written by `python -m tools.train_demo_model`, this card included.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("models/demo")
model = AutoModelForCausalLM.from_pretrained("models/demo")
messages = [{{"role": "user", "content": "Tell me a story about a fox and a river."}}]
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens={MAX_NEW_TOKENS})[0]))
```

Asked (held out): {request}

> {answer}

## Architecture

`LlamaForCausalLM`, {measured.parameters:,} parameters in float32: 4 layers, hidden size 192, intermediate
size 448, 6 query heads and 2 key/value heads of 32, tied embeddings, context {CONTEXT}. Byte-level BPE of
{VOCAB_SIZE} tokens whose merges come from ASCII text only, so an accent or an emoji is always several tokens:
streaming code meets characters split across tokens in ordinary output. Special tokens `{END_OF_TEXT}`,
`{IM_START}` and `{IM_END}`.

## Data

Synthetic: `tools/demo_corpus.py`, a seeded grammar of stories and of the chat turns around them. One (animal,
thing) pair in about twelve is held out: no training document mentions both words. `heldout.txt` holds
{measured.held_out_texts} documents about such pairs in the training format, each ended by `{END_OF_TEXT}` and
a newline.

## Training

{STEPS:,} steps of {BATCH} sequences of {CONTEXT} packed tokens ({tokens:,} tokens, one pass), loss on
every token, AdamW, warm-up and cosine, float32, seed {SEED}; {platform.machine()}, {THREADS} threads,
transformers {transformers.__version__}, torch {torch.__version__}.

## Measured

| what | value |
| --- | --- |
| training time, minutes | {measured.train_seconds / 60:.1f} |
| training speed, tokens per second | {tokens / measured.train_seconds:.0f} |
| final training loss | {measured.loss:.3f} |
| held-out perplexity per token | {measured.perplexity:.3f} |
| held-out requests answered | {measured.answered} of {HELD_OUT_REQUESTS} |

A request counts as answered when the greedy answer contains every word asked for (animal, adjective, name,
thing) and ends by itself with `{IM_END}` within {MAX_NEW_TOKENS} tokens. Perplexity is over the documents of
`heldout.txt`, each on its own, end mark included, from its second token on; it is low because a grammar wrote
them.

Other precisions than float32 (`python -m benchmarks fidelity`), in transformers and compiled by `python -m compiler`.
Perplexity here is over windows of {CONTEXT} tokens of the whole file, cut wherever they fall, so it is higher:

<!-- benchmarks:fidelity:figures -->
<!-- benchmarks:end -->

## What it cannot do

Anything else. It knows only the animals, places, objects and plots of its corpus, in English; asked for
something different it says that it only tells stories, or tells one that ignores the request. It has no
facts, follows no other instruction (a system message changes nothing), contradicts itself in small ways, and
was neither trained nor tested beyond {CONTEXT} tokens. Held out are pairs, not words or sentence
patterns: the figures above say that it combines known parts, not that it writes new ones.
"""


def directory_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def main(out_dir: Path) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)

    tokenizer = train_tokenizer()
    model = new_model(tokenizer)
    started = time.perf_counter()
    loss = train(model, tokenizer)
    train_seconds = time.perf_counter() - started
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

    measured = Measured(
        parameters=model.num_parameters(),
        loss=loss,
        train_seconds=train_seconds,
        perplexity=perplexity(model, tokenizer, texts),
        held_out_texts=len(texts),
        answered=sum(good for good, _ in results),
        example=(requests[0].messages[-1]["content"], results[0][1]),
    )
    (out_dir / "README.md").write_text(model_card(measured), encoding="utf-8")
    print(measured, f"{directory_bytes(out_dir):,} bytes")
    if measured.answered < SUCCESS_BAR * HELD_OUT_REQUESTS:
        raise SystemExit(f"only {measured.answered} of {HELD_OUT_REQUESTS} requests answered")
    if directory_bytes(out_dir) > MAX_BYTES:
        raise SystemExit(f"{out_dir} holds {directory_bytes(out_dir):,} bytes, more than {MAX_BYTES:,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("models/demo"))
