"""Hunyuan, dense (0.5B to 7B, and its translators): LLaMA with norms of each head's queries and keys, after they turned."""

from nomoat.engine.arch import Architecture

HUNYUAN_DENSE = Architecture(name="hunyuan-dense", qk_norm="each head", turns_before_norms=True)
