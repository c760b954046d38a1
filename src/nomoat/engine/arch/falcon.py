"""Falcon: attention and MLP in parallel. 7B: one key-value head, one norm for both; 40B: eight, and attention has its own norm."""

from nomoat.engine.arch import FUSED_QKV, HF_DENSE_MLP, PLAIN_MLP, Architecture

FALCON = Architecture(
    name="falcon",
    norm="layer",
    attention_norms=("attn_norm_2", "attn_norm"),
    mlp_norm="attn_norm",
    activation="gelu",
    parallel=True,
    projections=FUSED_QKV | PLAIN_MLP,
    hf_layers="transformer.h",
    hf_names={"self_attn.qkv_proj": "self_attention.query_key_value", "self_attn.o_proj": "self_attention.dense"} | HF_DENSE_MLP,
)
