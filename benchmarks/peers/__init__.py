"""The same checkpoint, prompts, threads and precision in other people's engines, each in an environment of its own."""
