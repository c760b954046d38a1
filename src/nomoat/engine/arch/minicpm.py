"""MiniCPM 1B and 2B, MiniCPM4: LLaMA that scales its embedding, what each layer adds and its logits, as Granite does.

Scores are LLaMA's. Source: llama.cpp's conversion/minicpm.py, and the `modeling_minicpm.py` of OpenBMB's folders. MiniCPM3 is another.
Older files say none of the three scales, which llama.cpp took to be those of the 1B and 2B then: they are refused.
"""

from dataclasses import replace

from nomoat.engine.arch.granite import GRANITE

MINICPM = replace(GRANITE, name="minicpm", must_say=("embedding_scale", "residual_scale", "logit_scale"))
