"""BLOOM: ALiBi, and a norm right after the embedding."""

from nomoat.engine.arch import FUSED_QKV, HF_DENSE_MLP, PLAIN_MLP, Architecture

BLOOM = Architecture(
    name="bloom",
    norm="layer",
    embedding_norm=True,
    positions="alibi",
    activation="gelu_tanh",
    projections=FUSED_QKV | PLAIN_MLP,
    hf_layers="transformer.h",
    hf_names={"self_attn.qkv_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense"} | HF_DENSE_MLP,
)
