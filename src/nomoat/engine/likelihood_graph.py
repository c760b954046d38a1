"""What likelihoods change in a graph that `graph` builds: what tokens see is told instead of a mask, and log-probabilities come out.

Shapes: T tokens in one pass, K tokens they may see (cached and new), R reads; in frames N questions with S places each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from openvino import opset13 as op

from nomoat.engine.positions import KEYS, QUERIES, SEEN, i64
from nomoat.errors import UnsupportedError

ATTENTION = "ScaledDotProductAttention"


def take_sight(model: Any) -> None:
    """Inputs `places` [K] and `sight` [1, 1, T, K] instead of a mask. Raises UnsupportedError for a graph that others built."""
    nodes = _known_nodes(model)
    queries = op.unsqueeze(nodes["position_ids"], i64(1, 3))
    sight = _parameter(model, "sight", [-1, 1, -1, -1], np.bool_)
    for name, instead in ((KEYS, _parameter(model, "places", [-1], np.int64)), (QUERIES, queries), (SEEN, sight)):
        nodes[name].output(0).replace(instead.output(0))
    model.remove_parameter(nodes["attention_mask"])


def can_take_frames(model: Any) -> bool:
    """Whether `take_frames` can change this graph: its attention is OpenVINO's own, without sinks, and no mask but of what is seen.

    ALiBi's mask is of one text's places, sinks are of heads; mixtures of experts are not looked into.
    """
    nodes = _known_nodes(model)
    kinds = {node.get_type_name() for node in nodes.values()}
    masks = {target.get_node().get_output_partial_shape(0).rank.get_length() for target in nodes[KEYS].output(0).get_target_inputs()}
    plain = all(node.get_input_size() <= 5 for node in nodes.values() if node.get_type_name() == ATTENTION)
    return ATTENTION in kinds and "TopK" not in kinds and plain and masks == {4}


def take_frames(model: Any) -> None:
    """Let attention be of several questions apart, each of whose tokens lie in a frame of its own; all else is of the T tokens.

    Inputs instead of a mask: `places` [N, 1, 1, K] and `sight` [N, 1, S, K]; `frames` [N, S], which of the T tokens stands where;
    `back` [T], at which of all frames' places [N * S] each token finds what it has seen. The cache has a text for each frame.
    """
    nodes = _known_nodes(model)
    frames, back = _parameter(model, "frames", [-1, -1], np.int64), _parameter(model, "back", [-1], np.int64)
    first, second = op.constant(np.int64(0)), op.constant(np.int64(1))
    queries = op.unsqueeze(op.gather(op.squeeze(nodes["position_ids"], i64(0)), frames, first), i64(1, 3))
    places = _parameter(model, "places", [-1, 1, 1, -1], np.int64)
    for target in nodes[KEYS].output(0).get_target_inputs():
        target.get_node().output(0).replace(places.output(0))
    for name, instead in ((QUERIES, queries), (SEEN, _parameter(model, "sight", [-1, 1, -1, -1], np.bool_))):
        nodes[name].output(0).replace(instead.output(0))
    model.remove_parameter(nodes["attention_mask"])
    _count_texts(nodes["input_ids"], op.gather(op.shape_of(frames), i64(0), first))

    def apart(place: Any) -> None:  # [1, H, T, D] -> [N, H, S, D]
        found = op.gather(op.squeeze(place.get_source_output(), i64(0)), frames, second)
        place.replace_source_output(op.transpose(found, i64(1, 0, 2, 3)).output(0))

    for sink in model.get_sinks():
        apart(sink.input_value(0).get_node().input(1))  # what is new, after what is in the cache
    for node in [node for node in model.get_ordered_ops() if node.get_type_name() == ATTENTION]:
        heads, width = (node.get_output_partial_shape(0)[axis].get_length() for axis in (1, 3))
        apart(node.input(0))
        targets = node.output(0).get_target_inputs()
        together = op.reshape(op.transpose(node.output(0), i64(0, 2, 1, 3)), i64(-1, heads, width), False)
        found = op.transpose(op.unsqueeze(op.gather(together, back, first), i64(0)), i64(0, 2, 1, 3))
        for target in targets:
            target.replace_source_output(found.output(0))


def _count_texts(ids: Any, count: Any) -> None:
    """Let the cache be of so many texts, not of as many as the ids [B, T] have rows."""
    for shape in (target.get_node() for target in ids.output(0).get_target_inputs()):
        if shape.get_type_name() == "ShapeOf":
            for size in (target.get_node() for target in shape.output(0).get_target_inputs()):
                if size.get_output_partial_shape(0).rank.get_length() == 1:  # B, where T is a scalar
                    size.output(0).replace(count.output(0))


def give_log_probabilities(model: Any) -> None:
    """Inputs `picked`, some of T, and `reads` [R, 2], which of them and a token after it; log-probabilities [R] instead of logits."""
    head = _nodes(model)["lm_head"]
    picked = op.gather(head.input_value(0), _parameter(model, "picked", [-1], np.int64), op.constant(np.int64(1)))
    head.input(0).replace_source_output(picked.output(0))
    result = model.get_results()[0]
    log_p = op.squeeze(op.log_softmax(result.input_value(0), -1), i64(0))
    given = op.result(op.gather_nd(log_p, _parameter(model, "reads", [-1, 2], np.int64), 0))
    model.remove_result(result)
    model.add_results([given])
    model.validate_nodes_and_infer_types()


def _nodes(model: Any) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in model.get_ops()}


def _known_nodes(model: Any) -> dict[str, Any]:
    nodes = _nodes(model)
    if not nodes.keys() >= {KEYS, QUERIES, SEEN, "position_ids", "attention_mask", "lm_head"}:
        raise UnsupportedError(
            "a model that nomoat did not build itself gives no likelihoods of continuations", hint="compare its written answers"
        )
    return nodes


def _parameter(model: Any, name: str, shape: list[int], kind: Any) -> Any:
    node = op.parameter(shape, kind)
    node.set_friendly_name(name)
    node.output(0).set_names({name})
    model.add_parameters([node])
    return node
