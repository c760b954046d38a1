"""LLaMA and what has its shape: Alpaca, Vicuna, OpenLLaMA, SmolLM2, Mistral.

The first Mistral saw a window, which few of its files state; llama.cpp's do not.
"""

from nomoat.engine.arch import Architecture

LLAMA = Architecture(name="llama", rope_pairs="neighbours", windowed=(True,))
