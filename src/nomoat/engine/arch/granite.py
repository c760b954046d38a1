"""Granite 3: LLaMA with four multipliers: of the embedding, of what each layer adds, of scores, and of logits.

Its 1B-A400M and 3B-A800M are mixtures of experts.
"""

from dataclasses import replace

from nomoat.engine.arch import EXPERTS, SPLIT_QKV, Architecture

GRANITE = Architecture(name="granite", rope_pairs="neighbours", divides_logits=True, scales_residual=True)
GRANITEMOE = replace(GRANITE, name="granitemoe", projections=SPLIT_QKV | EXPERTS)
