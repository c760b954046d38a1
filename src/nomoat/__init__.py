"""Run, tune and prove open language models on an ordinary PC."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # `typing` takes as long to import as all that precedes `nomoat.__main__`, where Ctrl-C is a traceback
if TYPE_CHECKING:
    from nomoat.judge.duel import duel as duel
    from nomoat.judge.run import evaluate as evaluate
    from nomoat.responder import load as load
    from nomoat.serve.app import serve as serve
    from nomoat.tune.train import tune as tune

_WHERE = {
    "duel": "nomoat.judge.duel",
    "evaluate": "nomoat.judge.run",
    "load": "nomoat.responder",
    "serve": "nomoat.serve.app",
    "tune": "nomoat.tune.train",
}
__all__ = ["__version__", "duel", "evaluate", "load", "serve", "tune"]


def _imported(name: str) -> object:
    """Import each public function when it is first asked for: `import nomoat` loads no engine.

    In place of one whose optional part is not installed its package is given, which says so when it is called: see `callable_package`.
    """
    if name in _WHERE:
        import importlib
        import sys

        from nomoat import callable_package

        try:
            return getattr(importlib.import_module(_WHERE[name]), name)
        except ModuleNotFoundError as exc:
            if callable_package.extra_of(exc) != name:
                raise
            return sys.modules[f"nomoat.{name}"]
    raise AttributeError(f"module 'nomoat' has no attribute {name!r}")


if not TYPE_CHECKING:  # to a type checker any name would be there
    __getattr__ = _imported


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
