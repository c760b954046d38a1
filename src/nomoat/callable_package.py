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

from nomoat import extras
from nomoat.errors import MissingExtraError
from nomoat.uncut import uncut


def call_as_function(package: str, module: str) -> None:
    """Let the package `package`, which is being imported, stand for the function of its name in `module`, which is imported late."""
    vars(sys.modules[package])["_module"] = module
    sys.modules[package].__class__ = CallablePackage


class CallablePackage(ModuleType):
    _module: str

    def _function(self) -> Callable[..., Any]:
        """Raises MissingExtraError."""
        with uncut(), extras.needed_for(f"`{self.__name__}`"):
            module = importlib.import_module(self._module)
        function: Callable[..., Any] = getattr(module, self.__name__.rpartition(".")[2])
        return function

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """By its name, as its function is pickled and copied."""
        return importlib.import_module, (self.__name__,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        try:
            return inspect.signature(self._function())
        except MissingExtraError as exc:
            raise AttributeError(f"an optional part is not installed: {exc}") from exc

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of a module it may be set
        try:
            function = self._function()
        except MissingExtraError:
            return str(self.__dict__["__doc__"])
        return f"{self.__dict__['__doc__']}\n\n{function.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"
