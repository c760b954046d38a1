"""An OpenAI-compatible server for any responder. `nomoat.serve(...)` is `nomoat.serve.app.serve(...)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """This package carries the name of its public function.

    Importing any of its modules sets `nomoat.serve` to the package, whatever `nomoat.__getattr__` gave before; so the package
    itself can be called.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        from nomoat.serve.app import serve

        serve(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
