"""What likelihoods are asked of: a prompt and continuations, which share the tokens they begin with as a tree."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nomoat.records import ContinuationScore

TREE_TOKENS = 1024  # continuations with more tokens together go into several trees
SMALL_TREE_TOKENS = 32  # which are no more than a step of a search: nothing would be saved

Ints = npt.NDArray[np.int64]
NOTHING = np.zeros(0, np.int64)


class Tree:
    """Continuations as a tree of their tokens in depth-first order. A continuation's last token is read and not fed."""

    def __init__(self, rows: Sequence[list[int]]) -> None:
        """The rows in lexical order: so every node's descendants come right after it."""
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.reads: dict[tuple[int, int], int] = {}  # (node, or -1 for the prompt's last token; token after it) -> which read
        self.paths: list[list[int]] = []  # of each row, the reads whose sum it is
        self.fed_reads: list[int] = []  # of each node, the read that gives how likely it is
        parents: list[int] = []
        children: dict[tuple[int, int], int] = {}
        for row in rows:
            node, path = -1, []
            for depth, token in enumerate(row):
                step = (node, token)
                path.append(self.reads.setdefault(step, len(self.reads)))
                if depth + 1 == len(row):
                    break
                if step not in children:
                    children[step] = len(self.ids)
                    self.ids.append(token)
                    self.depths.append(depth)
                    self.fed_reads.append(path[-1])
                    parents.append(node)
                node = children[step]
            self.paths.append(path)
        self.ends = np.arange(1, len(self.ids) + 1)  # of each node, where its descendants end
        for node, parent in reversed(list(enumerate(parents))):
            if parent >= 0:
                self.ends[parent] = max(self.ends[parent], self.ends[node])


@dataclass(frozen=True)
class Question:
    """A prompt and its continuations. Neither is empty. `ends`: and of any one of these tokens after each, which is one token more.
    `max_unread`: see `Engine.timed_scores`."""

    prompt: list[int]
    continuations: Sequence[list[int]]
    ends: Sequence[int] = ()
    max_unread: float = 0.0

    @functools.cached_property
    def rows(self) -> Sequence[list[int]]:
        """What is read after the prompt."""
        return [[*row, end] for row in self.continuations for end in self.ends] if self.ends else self.continuations

    @functools.cached_property
    def trees(self) -> list[tuple[list[int], Tree]]:
        """All rows: each tree with the indices of its own."""
        return [(members, Tree([self.rows[member] for member in members])) for members in _groups(self.rows)]

    @functools.cached_property
    def is_searched(self) -> bool:
        """Whether parts of its tree may stay unread: see `choosing`. A small one is read in one pass with its prompt."""
        return self.max_unread > 0 and self.tree_tokens > SMALL_TREE_TOKENS

    @functools.cached_property
    def tree_tokens(self) -> int:
        """What is fed after the prompt where all is read."""
        return sum(len(tree.ids) for _, tree in self.trees)

    def scores(self, values: Sequence[npt.NDArray[np.float64]]) -> list[ContinuationScore]:
        """Of each continuation, from what each tree's reads gave."""
        totals = np.zeros(len(self.rows))
        for (members, tree), values_R in zip(self.trees, values, strict=True):
            totals[members] = [values_R[path].sum() for path in tree.paths]
        if self.ends:
            totals = np.logaddexp.reduce(totals.reshape(len(self.continuations), len(self.ends)), axis=1)
        return [
            ContinuationScore(log_probability=float(total), num_tokens=len(row) + bool(self.ends))
            for total, row in zip(totals, self.continuations, strict=True)
        ]


def _groups(continuations: Sequence[list[int]]) -> Iterator[list[int]]:
    """Indices of continuations in lexical order, as many at a time as a tree may hold tokens, at least one."""
    group: list[int] = []
    size = 0
    for index in sorted(range(len(continuations)), key=continuations.__getitem__):
        row = continuations[index]
        if group and size + len(row) > TREE_TOKENS:
            yield group
            group, size = [], 0
        group.append(index)
        size += len(row)
    if group:
        yield group
