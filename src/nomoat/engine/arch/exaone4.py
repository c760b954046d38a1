"""EXAONE 4.0: norms after attention and MLP alone. The 32B: three layers of four see a window, and the fourth does not turn."""

from nomoat.engine.arch import Architecture

EXAONE4 = Architecture(
    name="exaone4",
    attention_norms=(),
    mlp_norm=None,
    qk_norm="each head",
    post_norms=True,
    windowed=(True, True, True, False),
    turning=(True, True, True, False),
)
