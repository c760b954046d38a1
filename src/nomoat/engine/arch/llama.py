"""LLaMA and what has its shape: Alpaca, Vicuna, OpenLLaMA, SmolLM2, Mistral."""

from nomoat.engine.arch import Architecture

LLAMA = Architecture(name="llama", rows_permuted=True, attention_bias=False)
