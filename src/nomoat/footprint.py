"""Rules for what a model's weights take in memory: the engine follows them, and the catalogue foretells by them."""

from __future__ import annotations

from nomoat import hardware

# int8 would double the memory of a 4-bit file this large: it keeps its codes. What is called 3B has 2.8 to 3.2 billion weights.
OWN4_FROM_WEIGHTS = 2_500_000_000
EXACT_BYTES_PER_WEIGHT = 2 * 4  # float32, once in the model and once as compiled
EXACT_SHARE = 1 / 4  # of all memory, not of what is free: the same machine is to give the same likelihoods every day


def exact_bytes(num_weights: int) -> int | None:
    """What likelihoods in float32 take beside the served weights; None where that is too much, and the served ones are used."""
    need = EXACT_BYTES_PER_WEIGHT * num_weights
    return need if need <= EXACT_SHARE * hardware.memory_total_bytes().value else None
