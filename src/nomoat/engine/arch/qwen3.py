"""Qwen3: as Qwen2, with norms of each head's q and k instead of biases."""

from nomoat.engine.arch import Architecture

QWEN3 = Architecture(name="qwen3", qk_norm=True)
