"""GPT-2: learned positions."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

GPT2 = Architecture(
    name="gpt2",
    norm="layer",
    positions="learned",
    activation="gelu_tanh",
    projections=FUSED_QKV | PLAIN_MLP,
    hf_layers="transformer.h",
    hf_names={
        "self_attn.qkv_proj": "attn.c_attn",
        "self_attn.o_proj": "attn.c_proj",
        "mlp.up_proj": "mlp.c_fc",
        "mlp.down_proj": "mlp.c_proj",
    },
)
