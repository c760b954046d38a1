"""ERNIE 4.5, dense (0.3B): LLaMA, whose neighbours turn together in `transformers`, too."""

from nomoat.engine.arch import Architecture

ERNIE4_5 = Architecture(name="ernie4_5", rope_pairs="neighbours", hf_neighbours=True)
