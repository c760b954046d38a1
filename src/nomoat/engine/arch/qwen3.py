"""Qwen3: as Qwen2, with norms of each head's q and k instead of biases. Qwen3-30B-A3B and its like are mixtures of experts."""

from nomoat.engine.arch import EXPERTS, SPLIT_QKV, Architecture

QWEN3 = Architecture(name="qwen3", qk_norm="each head")
QWEN3MOE = Architecture(name="qwen3moe", qk_norm="each head", projections=SPLIT_QKV | EXPERTS)
