"""What Ollama has of a model beside its weights, and which file holds those: in its folder, a blob whose name has no `.gguf`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WEIGHTS = "application/vnd.ollama.image.model"  # the layer of a manifest
FROM = re.compile(r"(?i)\A(?:[ \t]*(?:#.*)?\r?\n)*FROM[ \t]+(\S.*?)[ \t\r]*(?:\n|\Z)")  # the first thing that a Modelfile says
MOST_BYTES = 1 << 20  # of a Modelfile


def hint(path: Path) -> str | None:
    """Which file of weights to name in place of a Modelfile, or of a manifest, a blob or a folder of Ollama's; None for any other."""
    path = path.absolute()
    if found := list(_weights(path)):
        name, blob = found[0]
        return f"name the weights of Ollama's `{name}`: `{blob}`" + (f", or those of another of the {len(found)}" if found[1:] else "")
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: nobody has the home folder of a `~name`
        is_small = path.is_file() and path.stat().st_size <= MOST_BYTES  # of a pipe the size is 0
        source = FROM.match(path.read_text(encoding="utf-8-sig")) if is_small else None
        if source is not None:
            weights = path.parent / Path(source[1].strip('"')).expanduser()
            return f"name the weights that it is made from: `{weights if weights.exists() else source[1]}`"
    return None


def _weights(path: Path) -> Iterator[tuple[str, Path]]:
    """Of each model whose files are at or below that path: its name, and the blob that holds its weights."""
    roots = (path / "models", path, *path.parents)
    is_there = os.path.isdir  # of pathlib, one that we may not look into is an error
    root = next((one for one in roots if is_there(one / "manifests") and is_there(one / "blobs")), None)
    for manifest in sorted((root / "manifests").glob("*/*/*/*")) if root is not None else ():
        layers: dict[str, Path] = {}
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            told = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
            layers = {one["mediaType"]: manifest.parents[4] / "blobs" / one["digest"].replace(":", "-") for one in told}
        files = (manifest, *layers.values())
        weights = layers.get(WEIGHTS, path)
        if weights not in (path, path.resolve()) and weights.is_file() and any(path in (file, *file.parents) for file in files):
            yield f"{manifest.parent.name}:{manifest.name}", weights
