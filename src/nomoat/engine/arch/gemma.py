"""Gemma 1, 2 and 3. The converter has added the 1 of `1 + weight` to their norms' weights.

Gemma 2: every second layer sees a window; the scores of attention and the logits are capped. Gemma 3: five layers of six see a
window, and turn with a base of their own. Text only: a file's vision part is not read.
"""

from nomoat.engine.arch import Architecture

GEMMA = Architecture(name="gemma", embedding_scaled=True, activation="gelu_tanh")
GEMMA2 = Architecture(
    name="gemma2",
    post_norms=True,
    embedding_scaled=True,
    activation="gelu_tanh",
    windowed=(True, False),
    width_scaled_layers=46,  # the 27B
    window=4096,  # the family's first files do not say these three; llama.cpp takes the same
    attention_cap=50.0,
    logit_cap=30.0,
)
GEMMA3 = Architecture(
    name="gemma3",
    qk_norm="each head",
    post_norms=True,
    embedding_scaled=True,
    activation="gelu_tanh",
    windowed=(True, True, True, True, True, False),
    local_rope_base=10000.0,
    width_scaled_layers=62,  # the 27B
)
