"""Phi-3 and Phi-4: q, k and v in one matrix, gate and up in another. The 128k models have LongRoPE."""

from nomoat.engine.arch import FUSED_GATED_MLP, FUSED_QKV, Architecture

PHI3 = Architecture(name="phi3", windowed=(True,), projections=FUSED_QKV | FUSED_GATED_MLP)
