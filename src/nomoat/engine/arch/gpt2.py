"""GPT-2: learned positions."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

GPT2 = Architecture(name="gpt2", norm="layer", positions="learned", activation="gelu_tanh", projections=FUSED_QKV | PLAIN_MLP)
