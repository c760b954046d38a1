"""OLMo 2 and 3: norms after attention and MLP alone, and of all heads' q and k at once.

OLMo 3: three layers of four see a window, and do not scale their positions. Its GGUF files have the same name.
"""

from nomoat.engine.arch import Architecture

OLMO2 = Architecture(
    name="olmo2",
    attention_norms=(),
    mlp_norm=None,
    qk_norm="all heads",
    post_norms=True,
    windowed=(True, True, True, False),
    local_rope_base=500000.0,
)
