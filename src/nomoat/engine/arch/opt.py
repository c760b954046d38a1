"""OPT: learned positions, ReLU. The 350M has its norms after attention and MLP, none at the end, and a narrower embedding.

No GGUF file has this family: the names are those `safetensors.py` gives it. Its table of positions begins two rows late; that is
left out there.
"""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

OPT = Architecture(name="opt", norm="layer", positions="learned", activation="relu", projections=SPLIT_QKV | PLAIN_MLP)
