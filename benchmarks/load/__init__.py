"""The FastAPI server under open-loop load: requests arrive on schedule whether or not earlier ones have finished."""
