"""Qwen2 and Qwen2.5: as LLaMA, with biases on q, k and v. Qwen1.5-MoE and Qwen2-57B-A14B are mixtures of experts."""

from nomoat.engine.arch import EXPERTS, SHARED_EXPERT, SPLIT_QKV, Architecture

QWEN2 = Architecture(name="qwen2")
QWEN2MOE = Architecture(name="qwen2moe", experts_normed=False, projections=SPLIT_QKV | EXPERTS | SHARED_EXPERT)
