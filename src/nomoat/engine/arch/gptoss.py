"""GPT-OSS: OpenAI's mixtures of experts, with biases everywhere, sinks of attention, and every second layer's window.

Its files say nothing of the gate's numbers, nor that YaRN does not round here: both are those of the models of August 2025.
"""

from nomoat.engine.arch import EXPERTS, SPLIT_QKV, Architecture

GPTOSS = Architecture(
    name="gpt-oss",
    mlp_norm="post_attention_norm",
    windowed=(True, False),
    sinks=True,
    yarn_truncates=False,
    activation="clamped",
    projections=SPLIT_QKV | EXPERTS,
)
