"""StableLM 2 1.6B, StableLM 3B and Zephyr 3B: layer norms, part of each head turns. The 12B, with its norms of q and k, is refused.

GGUF files say that attention and MLP are parallel where `config.json` does not say whether they are. Only the 12B's are.
"""

from nomoat.engine.arch import Architecture

STABLELM = Architecture(name="stablelm", norm="layer")
