"""Arcee's AFM-4.5B: LLaMA with an MLP that opens no gate, and squares what is above zero."""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

ARCEE = Architecture(name="arcee", rope_pairs="neighbours", activation="relu_squared", projections=SPLIT_QKV | PLAIN_MLP)
