"""Phi-1, 1.5 and 2: part of each head turns; attention and MLP in parallel behind one norm, biases everywhere.

Files older than the family in `transformers` have q, k and v in one matrix, and are refused.
"""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

PHI2 = Architecture(
    name="phi2",
    norm="layer",
    mlp_norm="attn_norm",
    activation="gelu_tanh",
    parallel=True,
    projections=SPLIT_QKV | PLAIN_MLP,
    hf_names={"self_attn.o_proj": "self_attn.dense", "mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"},
)
