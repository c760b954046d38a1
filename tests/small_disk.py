"""A disk that fills up: a file system of 64 kB for one command."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size=64k tmpfs "$0"'
FILL = """
import sys
with open(sys.argv[1] + "/fill", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
"""  # Python's, for a command with the place as its first argument
IN_A_NAMESPACE = ["unshare", "-rm", "sh", "-c"]


def run_on_small_disk(place: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command with such a file system at `place`; its stdout ends in the files that are left there.

    Skips the test where this user may not mount one.
    """
    place.mkdir(parents=True)
    try:
        subprocess.run([*IN_A_NAMESPACE, MOUNT, str(place)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a mount namespace")
    script = f'{MOUNT} && "$@"; code=$?; find "$0" -type f; exit $code'
    return subprocess.run([*IN_A_NAMESPACE, script, str(place), *command], capture_output=True, text=True, check=False)
