"""OPT: learned positions, ReLU. The 350M has its norms after attention and MLP, none at the end, and a narrower embedding.

No GGUF file has this family: its names are those of `hf_families.opt_name`. The two rows before the first of its table of positions
are left out there, too.
"""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

OPT = Architecture(
    name="opt",
    norm="layer",
    positions="learned",
    activation="relu",
    projections=SPLIT_QKV | PLAIN_MLP,
    hf_layers="model.decoder.layers",
    hf_names={"self_attn.o_proj": "self_attn.out_proj", "mlp.up_proj": "fc1", "mlp.down_proj": "fc2"},
)
