"""EXAONE 3.0 and 3.5: LLaMA, whose rows lie as `transformers` has them.

Its folders have other names, and so have adapters that were made with the code in them.
"""

from nomoat.engine.arch import Architecture

EXAONE = Architecture(
    name="exaone",
    own_names={
        "self_attn.q_proj": "attn.attention.q_proj",
        "self_attn.k_proj": "attn.attention.k_proj",
        "self_attn.v_proj": "attn.attention.v_proj",
        "self_attn.o_proj": "attn.attention.out_proj",
        "mlp.gate_proj": "mlp.c_fc_0",
        "mlp.up_proj": "mlp.c_fc_1",
        "mlp.down_proj": "mlp.c_proj",
    },
)
