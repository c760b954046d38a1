"""GPT-NeoX, Pythia, Dolly, StableLM-alpha: part of each head turns; attention and MLP in parallel, each with a norm of its own."""

from nomoat.engine.arch import FUSED_QKV, PLAIN_MLP, Architecture

GPTNEOX = Architecture(name="gptneox", norm="layer", activation="gelu", parallel=True, projections=FUSED_QKV | PLAIN_MLP)
