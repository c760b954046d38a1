"""What tests write into a home, and find in its folders."""

from __future__ import annotations

from pathlib import Path

from nomoat.route.policy import default_path


def write_policy(text: str) -> None:
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text(text, encoding="utf-8")


def names_in(folder: Path) -> list[str]:
    """Of all files and folders below it; none where it is not there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []
