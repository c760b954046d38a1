"""The folder of an imported model, which `importer` writes: the names of its files, and the error for one that is damaged."""

from __future__ import annotations

from pathlib import Path

from nomoat.errors import BadFileError

# Of all that is written there, and of the rules for it: one more when any of that changes. It is part of the cache's key.
VERSION = "25"
GRAPH, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
NATIVE = "native.json"  # what the graph tells: to read that itself would be 40 ms of a start


def not_whole(folder: Path, why: object = "") -> BadFileError:
    """For a folder that somebody damaged."""
    reason = f": {why}" if why else ""
    return BadFileError(f"`{folder}` is not a whole imported model{reason}", hint="remove that folder and try again")
