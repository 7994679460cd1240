"""OpenAI's requests and answers: JSON in, JSON out. No transport, no AWS, no token loop."""
