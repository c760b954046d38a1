"""OLMoE: a mixture of experts, with norms of all heads' q and k at once."""

from nomoat.engine.arch import EXPERTS, SPLIT_QKV, Architecture

OLMOE = Architecture(name="olmoe", qk_norm="all heads", experts_normed=False, projections=SPLIT_QKV | EXPERTS)
