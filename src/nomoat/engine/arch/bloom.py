"""BLOOM: ALiBi, and a norm right after the embedding."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

BLOOM = Architecture(
    name="bloom",
    norm="layer",
    embedding_norm=True,
    positions="alibi",
    activation="gelu_tanh",
    projections=FUSED_QKV | PLAIN_MLP,
)
