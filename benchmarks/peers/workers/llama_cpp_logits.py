"""A GGUF file quantised by llama.cpp itself, and what it then says of a text.

Arguments: GGUF_FILE KIND (a name of llama.cpp's such as Q4_K_M) TEXT WINDOW LOGITS THREADS. TEXT is an .npy file of
token ids `[T + 1]`, read in windows; logits `[T, V]` go to the .npy file LOGITS. Prints the file's bytes and its
tensors'.
"""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import ctypes
import json
import os
import sys
import tempfile

import gguf
import llama_cpp as ll
import numpy as np

path, kind, text, window, out, threads = sys.argv[1:7]
ids, window = np.load(text), int(window)
quiet = ll.llama_log_callback(lambda level, message, data: None)
ll.llama_log_set(quiet, None)
ll.llama_backend_init()
with tempfile.TemporaryDirectory() as scratch:
    quantised = os.path.join(scratch, "quantised.gguf")
    how = ll.llama_model_quantize_default_params()
    how.ftype, how.nthread = getattr(ll, f"LLAMA_FTYPE_MOSTLY_{kind}"), int(threads)
    if ll.llama_model_quantize(path.encode(), quantised.encode(), ctypes.byref(how)):
        sys.exit(f"llama.cpp cannot quantise to {kind}")
    tensors = gguf.GGUFReader(quantised).tensors
    sizes = {"size_bytes": os.path.getsize(quantised), "weights_bytes": int(sum(t.n_bytes for t in tensors))}
    sizes["kinds"] = sorted({t.tensor_type.name for t in tensors if t.data.ndim > 1})
    llm = ll.Llama(
        quantised, n_ctx=window, n_batch=window, n_ubatch=window, n_threads=int(threads), n_threads_batch=int(threads),
        logits_all=True, use_extra_bufts=False, verbose=False,
    )  # fmt: skip
    logits = np.lib.format.open_memmap(out, "w+", np.float32, (len(ids) - 1, llm.n_vocab()))
    for begin in range(0, len(ids) - 1, window):
        some = ids[:-1][begin : begin + window]
        llm.reset()
        llm.eval(some.tolist())
        logits[begin : begin + len(some)] = llm.scores[: len(some)]
print(json.dumps(sizes))
