"""SmolLM3: LLaMA, of which every fourth layer does not turn what it sees by its place."""

from nomoat.engine.arch import Architecture

SMOLLM3 = Architecture(name="smollm3", rope_pairs="neighbours", turning=(True, True, True, False))
