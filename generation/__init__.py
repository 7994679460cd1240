"""Token ids in, tokens out: sequences and their scheduler, sampling, stopping, the tokenizer. No JSON, no HTTP."""
