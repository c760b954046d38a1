"""MPT: ALiBi, and no biases anywhere."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

MPT = Architecture(
    name="mpt",
    norm="layer",
    positions="alibi",
    activation="gelu",
    projections=FUSED_QKV | PLAIN_MLP,
    hf_layers="transformer.blocks",
    hf_names={
        "self_attn.qkv_proj": "attn.Wqkv",
        "self_attn.o_proj": "attn.out_proj",
        "mlp.up_proj": "ffn.up_proj",
        "mlp.down_proj": "ffn.down_proj",
    },
)
