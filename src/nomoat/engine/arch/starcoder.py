"""StarCoder, StarCoderBase and SantaCoder: GPT-2 whose heads share one key and one value."""

from dataclasses import replace

from nomoat.engine.arch.gpt2 import GPT2

STARCODER = replace(GPT2, name="starcoder")
