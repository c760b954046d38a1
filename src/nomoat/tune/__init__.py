"""Fine-tuning on a CPU. `nomoat.tune(...)` is `nomoat.tune.train.tune(...)`."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """As in `nomoat.serve`: importing the package sets `nomoat.tune` to it, so the package itself can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from nomoat.tune.train import tune

        return tune(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule

# Before PyTorch loads OpenMP. By default its threads wait for each other by spinning for long: as soon as another program wants one of
# the cores, each of the thousands of small parallel regions of a step waits for a thread that does not run. Sleeping at once instead
# (OMP_WAIT_POLICY=PASSIVE) costs a third of the speed where nothing else runs; this is between them. See docs/log.md.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
