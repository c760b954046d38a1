"""GLM: gate and up in one matrix; half of each head turns, neighbours together. GLM-4-0414 has norms around attention and MLP.

Files of GLM-4-9B of 2024 have queries, keys and values in one matrix; those of GLM-Edge, and folders, have three.
"""

from dataclasses import replace

from nomoat.engine.arch import FUSED_GATED_MLP, SPLIT_QKV, Architecture

CHATGLM = Architecture(name="chatglm", rope_pairs="neighbours", projections=SPLIT_QKV | FUSED_GATED_MLP, hf_neighbours=True)
GLM4 = replace(CHATGLM, name="glm4", post_norms=True)
