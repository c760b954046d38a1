"""GPT-NeoX, Pythia, Dolly, StableLM-alpha: part of each head turns; attention and MLP in parallel, each with a norm of its own.

GPT-NeoX-20B's GELU is the one by tanh: its folder says so, its GGUF files do not, and llama.cpp takes that one for all.
"""

from nomoat.engine.arch import FUSED_QKV, HF_DENSE_MLP, PLAIN_MLP, Architecture

GPTNEOX = Architecture(
    name="gptneox",
    norm="layer",
    activation="gelu",
    parallel=True,
    projections=FUSED_QKV | PLAIN_MLP,
    hf_layers="gpt_neox.layers",
    hf_names={"self_attn.qkv_proj": "attention.query_key_value", "self_attn.o_proj": "attention.dense"} | HF_DENSE_MLP,
)
