"""MPT: ALiBi, and no biases anywhere."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

MPT = Architecture(name="mpt", norm="layer", positions="alibi", activation="gelu", projections=FUSED_QKV | PLAIN_MLP)
