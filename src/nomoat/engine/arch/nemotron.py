"""Nemotron-4 and Minitron: layer norms, half of each head turns, an MLP without a gate that squares what is above zero."""

from nomoat.engine.arch import PLAIN_MLP, SPLIT_QKV, Architecture

NEMOTRON = Architecture(name="nemotron", norm="layer", activation="relu_squared", projections=SPLIT_QKV | PLAIN_MLP)
