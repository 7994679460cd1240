"""The demo model's size, marks and seeds, and how many held-out texts it is measured on."""

SEED = 20
HELD_OUT_SEED = 21
TASKS_SEED = 22
ANSWERS_SEED = 23

VOCAB_SIZE = 1536
CONTEXT = 512
LAYERS = 4
HIDDEN_SIZE = 192
INTERMEDIATE_SIZE = 448
HEADS = 6
KEY_VALUE_HEADS = 2
HEAD_SIZE = 32

END_OF_TEXT, IM_START, IM_END = SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

HELD_OUT_DOCUMENTS = 100
HELD_OUT_REQUESTS = 200
HELD_OUT_TASKS = 100
MAX_NEW_TOKENS = 200

SUCCESS_BAR = 0.95
TASKS_BAR = 0.7
"""Lower: numbers are beyond a model that spells them token by token and has seen few."""
MAX_BYTES = 8_000_000
