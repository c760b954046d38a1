"""LLaMA and what has its shape: Alpaca, Vicuna, OpenLLaMA, SmolLM2, Mistral."""

from nomoat.engine.arch import Architecture

LLAMA = Architecture(name="llama", rope_pairs="neighbours")
