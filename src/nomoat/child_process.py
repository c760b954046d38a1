"""Work in another process: its memory goes with it, and Ctrl-C ends it at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TOLD = re.compile(r"(\d+) (\d+)")
# Told where this package lies.
SAME_PACKAGE = """
import sys
from importlib import util
place = sys.argv.pop(1)
spec = util.spec_from_file_location("nomoat", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["nomoat"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["nomoat"])
"""


def run(code: str, *arguments: str, home: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """What another process ended with that ran `code`, with this very package, whatever others its Python would find.

    0: well; 1: by an error, of which nothing is told; below 0, or on Windows above 1: by the system, or by Ctrl-C.
    `home` is its NOMOAT_HOME. `progress` is told (done, total) as `code` tells by `tell`. Raises OSError where no process can be had.
    """
    if not sys.executable:
        raise FileNotFoundError("it is not known which program Python is")
    # -P: what lies in the current folder is no module of ours
    command = [sys.executable, "-P", "-c", SAME_PACKAGE + code, str(Path(__file__).parent), *arguments]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": os.environ | {"NOMOAT_HOME": str(home)}}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **quiet) as child:  # type: ignore[call-overload]
        try:
            for line in child.stdout:
                if progress is not None and (told := TOLD.fullmatch(line.strip())):
                    progress(*map(int, told.groups()))
            return int(child.wait())
        finally:
            child.kill()
            child.wait()  # after Ctrl-C, Popen itself does so for a quarter of a second


def tell(done: int, total: int) -> None:
    """To whoever waits for this process, see `run`."""
    print(done, total, flush=True)
