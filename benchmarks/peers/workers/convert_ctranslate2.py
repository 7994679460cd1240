"""Checkpoint to CTranslate2's format. Arguments: CHECKPOINT OUTPUT PRECISION."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys

import ctranslate2

checkpoint, output, precision = sys.argv[1:4]
quantization = None if precision == "float32" else precision
ctranslate2.converters.TransformersConverter(checkpoint).convert(output, quantization=quantization, force=True)
