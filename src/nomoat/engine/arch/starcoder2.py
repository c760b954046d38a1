"""StarCoder2: layer norms and biases, a plain MLP. Its folders say a window, its GGUF files do not."""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

STARCODER2 = Architecture(
    name="starcoder2",
    norm="layer",
    windowed=(True,),
    activation="gelu_tanh",
    projections=SPLIT_QKV | PLAIN_MLP,
    hf_names={"mlp.up_proj": "mlp.c_fc", "mlp.down_proj": "mlp.c_proj"},
)
