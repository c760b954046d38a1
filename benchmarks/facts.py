"""What every measurement is kept with, and how it is written: no number without its date, machine, commit and command.

And how a process of its own is measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any


def circumstances() -> dict[str, Any]:
    """Date, machine, commit (with "-dirty" where files differ from it; "" outside a repository) and command."""
    from nomoat import hardware  # late: some scripts measure what a process of theirs imports

    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
    return {"date": date.today().isoformat(), "machine": hardware.summary(), "commit": commit, "command": shlex.join(sys.argv)}


def write(path: Path | None, found: Mapping[str, Any]) -> None:
    """Write what was found where `--json` says, if it does."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{json.dumps(found, indent=1, ensure_ascii=False)}\n", encoding="utf-8")


def program(name: str) -> str:
    """For argparse: what a peer is run by; a wrong path is told before anything is measured."""
    if shutil.which(name) is None:
        raise argparse.ArgumentTypeError(f"there is no program `{name}`")
    return name


def existing_folder(name: str) -> Path:
    """The same of a folder that a peer reads."""
    if not Path(name).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder `{name}`")
    return Path(name)


def answer_of(command: Sequence[str], asked: object = None) -> Any:
    """What a process answers: the JSON of the last line it prints. It reads `asked` as JSON; what it says of errors is seen.

    Raises CalledProcessError where it fails.
    """
    given = None if asked is None else json.dumps(asked)
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
