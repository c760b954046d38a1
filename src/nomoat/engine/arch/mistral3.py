"""Ministral 3: LLaMA whose positions are stretched by YaRN, with cosine and sine as they are.

Queries behind the first context grow with their position, which is not built: texts end there.
"""

from nomoat.engine.arch import Architecture

MISTRAL3 = Architecture(name="mistral3", rope_pairs="neighbours")
