"""Granite 3: LLaMA with four multipliers: of the embedding, of what each layer adds, of scores, and of logits."""

from nomoat.engine.arch import Architecture

GRANITE = Architecture(name="granite", rope_pairs="neighbours", divides_logits=True)
