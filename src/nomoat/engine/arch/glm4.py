"""GLM-4-0414: norms around attention and MLP, gate and up in one matrix; half of each head turns, neighbours together."""

from nomoat.engine.arch import FUSED_GATED_MLP, SPLIT_QKV, Architecture

GLM4 = Architecture(
    name="glm4",
    post_norms=True,
    rope_pairs="neighbours",
    projections=SPLIT_QKV | FUSED_GATED_MLP,
    hf_neighbours=True,
)
