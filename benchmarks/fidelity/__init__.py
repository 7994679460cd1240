"""What a precision costs in fidelity: the compiled engine, and transformers in bfloat16, beside it in float32."""
