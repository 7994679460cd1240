"""One request, from validated JSON to tokens to JSON. No transport, no AWS."""
