"""Checkpoint to OpenVINO's format, weights by NNCF. Arguments: CHECKPOINT OUTPUT PRECISION (float32, int8, int4)."""
# mypy: ignore-errors
# Its imports are of another environment, which the type checker does not see.

import sys

import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from transformers import AutoTokenizer

checkpoint, output, precision = sys.argv[1:4]
settings = {
    "float32": None,
    "int8": OVWeightQuantizationConfig(bits=8),
    "int4": OVWeightQuantizationConfig(bits=4, group_size=32, ratio=1.0),
}
model = OVModelForCausalLM.from_pretrained(
    checkpoint, export=True, compile=False, load_in_8bit=False, quantization_config=settings[precision]
)
model.save_pretrained(output)
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
tokenizer.save_pretrained(output)
encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
openvino.save_model(encoder, f"{output}/openvino_tokenizer.xml")
openvino.save_model(decoder, f"{output}/openvino_detokenizer.xml")
