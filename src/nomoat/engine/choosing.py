"""Choosing among many continuations without reading all of their tokens: those that can no longer be the likeliest stay unread.

A log-probability only falls with each further token, so that of a continuation's first ones is the most the whole can have. The prompt
is read first, then the tree a step at a time: the likeliest beginnings whole and, if one that is not read could still matter, token by
token what could. Nothing but the prompt and its continuations decides what is read.

Shapes: R reads of the tree, C continuations, T nodes of a step, K nodes fed so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nomoat.engine.continuations import Ints, Question, Tree
from nomoat.records import ContinuationScore

STEP_TOKENS = 32  # nodes fed in one step, at most
NEAR = 2.0  # natural log: beginnings so near to the likeliest one are read whole at first
ROUNDING = 1e-3  # natural log: what is so near to the likeliest one is read


class Search:
    """What of a question's tree is fed next, and what is known of its continuations."""

    def __init__(self, question: Question) -> None:
        self._question = question
        order = sorted(range(len(question.rows)), key=question.rows.__getitem__)
        self.tree = Tree([question.rows[at] for at in order])
        paths = dict(zip(order, self.tree.paths, strict=True))
        each = max(1, len(question.ends))  # rows of a continuation: one for each token that may end it
        self._paths = [[paths[at + end] for end in range(each)] for at in range(0, len(order), each)]
        reads = list(self.tree.reads)
        self._after, self._tokens = np.array(reads, np.int64).T  # of each read, the node and the token after it
        node_of = {read: node for node, read in enumerate(self.tree.fed_reads)}
        # Of each continuation, the nodes it needs; the last token of one without an end is read and not fed.
        self._nodes = [[node_of[read] for read in rows[0][:-1]] for rows in self._paths]
        self._values_R = np.zeros(len(reads))  # of what is not read, the most it can be
        self._is_fed = np.zeros(len(self.tree.ids), bool)
        self._has_begun = False

    @property
    def first(self) -> Tree:
        """What is read of the prompt alone."""
        return Tree([[int(token)] for token in self._tokens[self._after < 0]])

    def take_first(self, values: npt.NDArray[np.float64]) -> None:
        """What the reads of `first` gave."""
        self._values_R[self._after < 0] = values

    def reads(self, nodes: Sequence[int]) -> tuple[Ints, Ints, Ints]:
        """What is read of these nodes, which are sorted: which reads of the tree, after which of the nodes, and which tokens."""
        which = np.flatnonzero(np.isin(self._after, nodes))
        return which, np.searchsorted(nodes, self._after[which]), self._tokens[which]

    def sight(self, nodes: Sequence[int], fed: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which of the nodes that are fed each of these sees, [T, K]: itself and its ancestors. -1 is none."""
        queries, keys = np.array(nodes, np.int64)[:, None], np.array(fed, np.int64)
        sees: npt.NDArray[np.bool_] = (keys >= 0) & (keys <= queries) & (queries < self.tree.ends[keys])
        return sees

    def take(self, which: Ints, values: npt.NDArray[np.floating]) -> None:
        """What these reads of the tree gave."""
        self._values_R[which] = values

    def step(self) -> list[int]:
        """The nodes to be fed next, sorted, each behind its ancestors; none where nothing that is not read matters."""
        bounds: dict[int, float] = {}
        scores = self.scores()
        for at in self._that_matter(scores):
            bounds[next(node for node in self._nodes[at] if not self._is_fed[node])] = scores[at].log_probability
        order = sorted(bounds, key=lambda node: (-bounds[node], node))
        if not self._has_begun:
            order = [node for node in order if bounds[node] >= bounds[order[0]] - NEAR]
        if not self._has_begun or math.isfinite(self._question.max_unread):  # of what has a share, most is read to its end
            order = [below for node in order for below in range(node, self.tree.ends[node])]
        self._has_begun = True
        taken = sorted(order[:STEP_TOKENS])
        self._is_fed[taken] = True
        return taken

    def _that_matter(self, scores: Sequence[ContinuationScore]) -> list[int]:
        """The continuations that have to be read on."""
        found_C = np.array([score.log_probability for score in scores])
        is_open_C = np.array([score.is_bound for score in scores])
        best = found_C[~is_open_C].max(initial=-math.inf)
        matters_C = is_open_C & (found_C >= best - ROUNDING)
        if math.isfinite(self._question.max_unread) and math.isfinite(best):
            with np.errstate(over="ignore"):
                shares_C = np.exp(found_C - best)
            room = self._question.max_unread * shares_C[~is_open_C].sum()
            order = np.flatnonzero(is_open_C)[np.argsort(found_C[is_open_C], kind="stable")]
            matters_C[order[shares_C[order].cumsum() > room]] = True
        return np.flatnonzero(matters_C).tolist()

    def scores(self) -> list[ContinuationScore]:
        """Of each continuation, as far as it is read."""
        found = []
        for rows, nodes, row in zip(self._paths, self._nodes, self._question.continuations, strict=True):
            is_bound = not self._is_fed[nodes].all()
            totals = [self._values_R[path].sum() for path in rows]
            total = totals[0] if is_bound or not self._question.ends else np.logaddexp.reduce(totals)
            num_tokens = len(row) + bool(self._question.ends)
            found.append(ContinuationScore(log_probability=float(total), num_tokens=num_tokens, is_bound=is_bound))
        return found
