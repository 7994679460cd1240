"""A checkpoint that always knows what to say next: a sentence, or a call first and another sentence after its result.

Every token of the vocabulary has one likeliest follower, so that whatever a client makes of an answer can be compared
with a text that is known, and an answer in a shape ends as soon as the shape allows. The chat template decides which
token a prompt ends with. The context is as long as agents' prompts need.
"""

import itertools
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from tests.checkpoints import write_tokenizer
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL

VOCAB = 384
"""Also the width: a token's embedding is a one where its id is."""
SAY, CALL, TOLD, BEGIN, END = "<|say|>", "<|call|>", "<|told|>", "<tool_call>", "</tool_call>"
CONTEXT = 16_384
PREFERRED = ("<eos>", '"', "}", "]", ",", "3")
"""What follows where nothing else is said, the likeliest first: it ends strings, lists, objects and numbers."""
STEP = 20.0
"""Between the logits of two neighbours in an order of preference: sampling at temperature 2 still follows it."""
TEMPLATE = """
{%- if tools %}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}{{ message.role }}: {{ message.content }}
{%- for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{% endfor %}
{%- if add_generation_prompt %}
{%- if messages[-1].role == "tool" %}<|told|>{% elif tools %}<|call|>{% else %}<|say|>{% endif %}
{%- endif %}""".lstrip()


def make_checkpoint(directory: Path) -> Path:
    """Write it and return its directory."""
    directory.mkdir()
    write_tokenizer(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (SAY, CALL, TOLD, BEGIN, END)])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=VOCAB,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    layer = model.model.layers[0]
    with torch.no_grad():
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        model.model.embed_tokens.weight.copy_(torch.eye(VOCAB))
        model.lm_head.weight.copy_(following(tokenizer).T / VOCAB**0.5)  # RMSNorm makes a one the width's root
    model.save_pretrained(directory)
    return directory


def following(tokenizer: Tokenizer) -> torch.Tensor:
    """Logits [V, V]: row i has those of the tokens after token i."""
    order = [token_of(text, tokenizer) for text in PREFERRED]
    order += [token for token in range(tokenizer.get_vocab_size()) if token not in order]
    logits = torch.full((VOCAB, VOCAB), -STEP * VOCAB)
    for place, token in enumerate(order):
        logits[:, token] = -STEP * place
    texts = {SAY: ANSWER, TOLD: ANSWER_AFTER_TOOL, CALL: BEGIN}
    followers: dict[int, int] = {}
    for start, text in texts.items():
        ids = [token_of(start, tokenizer), *tokenizer.encode(text).ids]
        if text != BEGIN:
            ids.append(0)
        for token, follower in itertools.pairwise(ids):
            assert followers.setdefault(token, follower) == follower, f"two tokens follow {token} in {texts}"
    for token, follower in followers.items():
        logits[token, follower] = STEP
    return logits


def token_of(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is one token."""
    (token,) = tokenizer.encode(text).ids
    return int(token)
