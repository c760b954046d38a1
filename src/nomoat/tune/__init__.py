"""Fine-tuning on a CPU. `nomoat.tune(...)` is `nomoat.tune.train.tune(...)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """As in `nomoat.serve`: importing the package sets `nomoat.tune` to it, so the package itself can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from nomoat.tune.train import tune

        return tune(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
