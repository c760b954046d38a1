"""By `make lowest`, with the oldest releases that pyproject.toml allows: help, answers, and a report.

Not covered: what the extras `tune`, `ray` and `convert` bring, which are gigabytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

MODEL, QUESTION = "smollm2-135m", "What is a moat?"
TABLE = "text,label\nwonderful phone,good\nterrible phone,bad\nI love it,good\nbroken again,bad\n"
COLOUR = '{"type": "object", "properties": {"colour": {"type": "string", "maxLength": 9}}, "required": ["colour"]}'


def run(*arguments: str, cwd: str | None = None) -> str:
    print("$ nomoat", *arguments, flush=True)
    return subprocess.run([sys.executable, "-m", "nomoat", *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    for verb in ((), ("run",), ("duel",), ("serve",)):
        assert "Usage: " in run(*verb, "--help")
    run("pull", MODEL)
    assert run("run", MODEL, QUESTION, "--max-tokens", "9").strip()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("t.csv", TABLE), ("s.json", COLOUR)):
            (Path(folder) / name).write_text(text, encoding="utf-8")
        assert "colour" in run("run", MODEL, "Name a colour", "--json-schema", "s.json", "--max-tokens", "30", cwd=folder)
        columns = ["--input-column", "text", "--label-column", "label"]
        run("duel", MODEL, MODEL, "--suite", "t.csv", *columns, "--report", "r.html", cwd=folder)
        assert "<svg" in (Path(folder) / "r.html").read_text(encoding="utf-8")
    print("all of it works")


if __name__ == "__main__":
    main()
