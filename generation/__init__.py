"""Token ids in, tokens out: the token loop, sampling, stopping, the tokenizer. No JSON, no HTTP."""
