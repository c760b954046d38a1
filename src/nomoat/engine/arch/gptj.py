"""GPT-J: neighbours turn together, in part of each head; attention and MLP in parallel behind one norm.

llama.cpp neither writes nor runs this family; the tensors' names are those the `gguf` package gives it.
"""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

GPTJ = Architecture(
    name="gptj",
    norm="layer",
    mlp_norm="attn_norm",
    rope_pairs="neighbours",
    hf_neighbours=True,
    activation="gelu_tanh",
    parallel=True,
    projections=SPLIT_QKV | PLAIN_MLP,
    hf_layers="transformer.h",
    hf_names={
        "self_attn.q_proj": "attn.q_proj",
        "self_attn.k_proj": "attn.k_proj",
        "self_attn.v_proj": "attn.v_proj",
        "self_attn.o_proj": "attn.out_proj",
        "mlp.up_proj": "mlp.fc_in",
        "mlp.down_proj": "mlp.fc_out",
    },
)
