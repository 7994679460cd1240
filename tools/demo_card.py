"""The demo model's card: what it is, what it was trained on, what was measured, what it cannot do."""

from dataclasses import dataclass

from tools.demo_shape import (
    ANSWERS_SEED,
    CONTEXT,
    END_OF_TEXT,
    HEAD_SIZE,
    HEADS,
    HIDDEN_SIZE,
    IM_END,
    IM_START,
    INTERMEDIATE_SIZE,
    KEY_VALUE_HEADS,
    LAYERS,
    MAX_NEW_TOKENS,
    SEED,
    TASKS_SEED,
    VOCAB_SIZE,
)


@dataclass(frozen=True)
class Trained:
    """What one stage of the training took."""

    steps: int
    tokens: int
    loss: float
    """The last ones', smoothed."""
    seconds: float


@dataclass(frozen=True)
class Measured:
    """What one run found out about the model it trained."""

    parameters: int
    machine: str
    libraries: str
    stages: tuple[Trained, ...]
    """On stories; on tasks and other stories; on those with the loss of the answers alone."""
    perplexity: float
    held_out_texts: int
    answered: int
    asked: int
    done: int
    to_do: int
    story: tuple[str, str]
    """A request that was held out, and the answer; so are those of the tasks."""
    facts: tuple[str, str]
    call: tuple[str, str]


def model_card(measured: Measured) -> str:
    """The card's text, to be filled with the benchmarks' figures by `python -m benchmarks report`."""
    stories, tasks, answers = measured.stages
    minutes = ", ".join(f"{stage.seconds / 60:.1f}" for stage in measured.stages)
    losses = ", ".join(f"{stage.loss:.3f}" for stage in measured.stages)
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Demo story model

A tiny causal language model that tells short animal stories when asked in chat, continues plain ones, gives the facts
of a story as JSON, and calls functions. It exists so that a server for Hugging Face checkpoints can be run, tested and
measured with no download: the format, the chat template and the tokenizer are those of a real model, only the size is
not.
Written by `python -m tools.train_demo_model`, this card included.

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("models/demo")
model = AutoModelForCausalLM.from_pretrained("models/demo")
messages = [{{"role": "user", "content": "Tell me a story about a fox and a river."}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens={MAX_NEW_TOKENS})[0]))
```

Asked (held out, as are the two below): {measured.story[0]}

> {measured.story[1]}

Asked for a story's facts:

```
{measured.facts[0]}
```

```json
{measured.facts[1]}
```

Offered functions, and asked: {measured.call[0]}

```
{measured.call[1]}
```

## Architecture

`LlamaForCausalLM`, {measured.parameters:,} parameters in float32: {LAYERS} layers, hidden size
{HIDDEN_SIZE}, intermediate size {INTERMEDIATE_SIZE}, {HEADS} query heads and {KEY_VALUE_HEADS} key/value heads of
{HEAD_SIZE}, tied embeddings, context {CONTEXT}. Byte-level BPE of {VOCAB_SIZE} tokens whose merges come from ASCII text
only, so an accent or an emoji is always several tokens: streaming code meets characters split across tokens in ordinary
output. Special tokens `{END_OF_TEXT}`, `{IM_START}` and `{IM_END}`. The chat template tells of functions in the system
turn and writes calls as Hermes does.

## Data

Synthetic: `tools/demo_corpus.py`, a seeded grammar of stories and of the chat turns around them. One (animal,
thing) pair in about twelve is held out: no training document mentions both words. `heldout.txt` holds
{measured.held_out_texts} documents about such pairs in the training format, each ended by `{END_OF_TEXT}` and
a newline. `tools/demo_tasks.py` makes the tasks: a story and some of its facts as JSON (`hero`, `friend`, `thing`,
`kind`), and requests with some of four functions (`get_weather`, `find_animal`, `send_letter`, `lend`), the
calls, their results and the answers; or with functions that do not help.

## Training

{stories.steps:,} steps on stories ({stories.tokens:,} tokens), {tasks.steps:,} on tasks and other stories
({tasks.tokens:,}), {answers.steps:,} on more of these with the loss of what the assistant says alone
({answers.tokens:,}); each in packed sequences of {CONTEXT} tokens, one pass, AdamW, warm-up and cosine, float32, seeds
{SEED}, {TASKS_SEED} and {ANSWERS_SEED}; {measured.machine}, {measured.libraries}.

## Measured

| what | value |
| --- | --- |
| training time of each, minutes | {minutes} |
| training loss at the end of each | {losses} |
| held-out perplexity per token | {measured.perplexity:.3f} |
| held-out requests answered | {measured.answered} of {measured.asked} |
| held-out tasks done | {measured.done} of {measured.to_do} |

A request counts as answered when the greedy answer contains every word asked for (animal, adjective, name,
thing) and ends by itself with `{IM_END}` within {MAX_NEW_TOKENS} tokens. A task, half of them facts and half calls,
counts as done when that answer, with no grammar to hold it, is exactly the JSON or the call that is right. Perplexity
is over the documents of
`heldout.txt`, each on its own, end mark included, from its second token on; it is low because a grammar wrote
them.

Other precisions than float32 (`python -m benchmarks fidelity`), in transformers and compiled by `python -m compiler`.
Perplexity here is over windows of {CONTEXT} tokens of the whole file, cut wherever they fall, so it is higher:

<!-- benchmarks:fidelity:figures -->
<!-- benchmarks:end -->

## What it cannot do

Anything else. It knows only the animals, places, objects, plots and functions of its corpus, in English; asked for
something different it says that it only tells stories, or tells one that ignores the request. It has no
facts, follows no other instruction (a system message changes nothing), contradicts itself in small ways, and
was neither trained nor tested beyond {CONTEXT} tokens. Most tasks that fail fail at a number, which it does not copy.
Held out are pairs, not words or sentence
patterns: the figures above say that it combines known parts, not that it writes new ones.
"""
