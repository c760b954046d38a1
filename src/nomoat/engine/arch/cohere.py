"""Command R and Command R7B: attention and MLP in parallel behind one layer norm; neighbours turn together; scaled logits.

R7B (`cohere2`): three layers of four see a window, and the fourth does not turn.
"""

from dataclasses import replace

from nomoat.engine.arch import Architecture

COMMAND_R = Architecture(
    name="command-r",
    norm="layer",
    mlp_norm="attn_norm",
    rope_pairs="neighbours",
    parallel=True,
    hf_neighbours=True,
)
COHERE2 = replace(COMMAND_R, name="cohere2", windowed=(True, True, True, False), turning=(True, True, True, False))
