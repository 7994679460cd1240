"""What runs the network: token ids and a KV cache in, logits out. Knows nothing of text, sampling or requests."""
