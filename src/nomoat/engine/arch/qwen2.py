"""Qwen2 and Qwen2.5: as LLaMA, with biases on q, k and v."""

from nomoat.engine.arch import Architecture

QWEN2 = Architecture(name="qwen2")
