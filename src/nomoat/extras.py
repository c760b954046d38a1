"""The optional parts of nomoat: what each imports, and the error where that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nomoat.errors import MissingExtraError

# What each imports, by the name of its extra, which is that of its package.
IMPORTS = {
    "serve": ("fastapi", "markdown_it", "prometheus_client", "pydantic", "starlette", "uvicorn"),
    "tune": ("safetensors", "torch"),
}


def extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra that would bring the module that is missing; None if none would."""
    missing = (error.name or "").partition(".")[0]
    return next((extra for extra, modules in IMPORTS.items() if missing in modules), None)


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """Imports within are of optional parts, for `what`. Raises MissingExtraError for one that is not installed."""
    try:
        yield
    except ModuleNotFoundError as exc:
        extra = extra_of(exc)
        if extra is None:
            raise
        raise MissingExtraError(extra=extra, what=what) from exc
