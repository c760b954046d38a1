"""A package that has the name of its public function, and is called and described as that function.

Importing any module of `nomoat.serve` sets `nomoat.serve` to the package, whatever `nomoat.__getattr__` gave before.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def call_as_function(package: str, module: str) -> None:
    """Let the package `package`, which is being imported, stand for the function of its name in `module`, which is imported late."""
    vars(sys.modules[package])["_module"] = module
    sys.modules[package].__class__ = CallablePackage


class CallablePackage(ModuleType):
    _module: str

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self._module), self.__name__.rpartition(".")[2])
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        try:
            return inspect.signature(self._function())
        except ImportError as exc:
            raise AttributeError(f"an optional part is not installed: {exc}") from exc

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of a module it may be set
        try:
            function = self._function()
        except ImportError:  # an optional part is not installed
            return str(self.__dict__["__doc__"])
        return f"{self.__dict__['__doc__']}\n\n{function.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"
