"""A quiz of questions that mean nothing, and models that know some of its answers."""

from __future__ import annotations

from collections.abc import Collection

from nomoat.engine.fake import FakeEngine
from nomoat.judge.metrics import Metric
from nomoat.judge.suite import Suite
from nomoat.records import Example, Message
from nomoat.responder import Responder

MAX_EXAMPLES = 200


def quiz(
    num_examples: int, metric: Metric = "exact", *, name: str = "quiz", target: str = "yes", choices: tuple[str, ...] = (),
    max_new_tokens: int = 32,
) -> Suite:  # fmt: skip
    """`question 0`, `question 1` and so on, all with the same target."""
    examples = tuple(
        Example(id=str(at), messages=(Message(role="user", content=f"question {at}"),), target=target, choices=choices)
        for at in range(num_examples)
    )
    digest = f"{metric}{num_examples}{''.join(choices)}"
    return Suite(name=name, metric=metric, examples=examples, sha256=digest, max_new_tokens=max_new_tokens)


def knowing(name: str, right: int | Collection[int], *, wrong: str = "no") -> Responder:
    """A model that answers the first `right` questions, or those of these numbers, with "yes", and all others with `wrong`."""
    known = range(right) if isinstance(right, int) else right
    return Responder(name, FakeEngine(answers={f"question {at}": "yes" if at in known else wrong for at in range(MAX_EXAMPLES)}))
