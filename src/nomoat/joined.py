"""What belongs together because it shares a name with another, or with one that does."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt


def joined(names: Sequence[Sequence[Hashable]]) -> npt.NDArray[np.intp]:
    """A number for each item, which has one name or more: equal for those that share a name, and for all that these join.

    Numbers count from 0, in the order of the items, of which there is one at least.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places: dict[Hashable, int] = {}
    rows = [(places.setdefault(item[0], len(places)), places.setdefault(name, len(places))) for item in names for name in item]
    one, other = np.array(rows, dtype=np.intp).T
    graph = coo_array((np.ones(len(rows)), (one, other)), shape=(len(places), len(places)))
    numbers = connected_components(graph, directed=False)[1]
    return np.asarray(numbers[[places[item[0]] for item in names]], dtype=np.intp)
