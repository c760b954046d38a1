"""How a model makes one vector of a text's last hidden states: their mean, unless its file says that it is the first one or the last.

Sources: llama.cpp's `pooling_type`; `modules.json` and `1_Pooling/config.json`, as sentence-transformers writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nomoat.errors import BadFileError, UnsupportedError
from nomoat.hub_folder import MODULES, POOLING

MEAN, FIRST, LAST = "mean", "first", "last"
OF_TYPES = {0: MEAN, 1: MEAN, 2: FIRST, 3: LAST}  # 0 leaves it to who asks
OF_MODES = {"mean": MEAN, "cls": FIRST, "lasttoken": LAST}
OLDER_MODES = {  # before sentence-transformers 6: each true or false
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
WHOLE = "a whole "  # file that is not there, or is damaged
MODULES_DONE = ("Transformer", "Pooling", "Normalize")  # the last one is left to who asks


def of_metadata(metadata: Mapping[str, Any]) -> str:
    """MEAN, FIRST or LAST; else in words what a GGUF file asks for."""
    said = metadata.get(f"{metadata.get('general.architecture')}.pooling_type", 1)
    return OF_TYPES.get(said, f"pooling of the type {said}") if isinstance(said, int) else f"pooling of the type {said!r}"


def of_folder(folder: Path) -> str:
    """The same of a Hugging Face folder."""
    if not (folder / MODULES).is_file():
        return MEAN
    modules = _read(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        return f"{WHOLE}`{MODULES}`"
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    strange = next((kind for kind in kinds if kind not in MODULES_DONE), None)
    if strange is not None:
        return f"the module `{strange}`"
    if "Pooling" not in kinds:
        return MEAN
    said = _read(folder / POOLING)
    if not isinstance(said, dict):
        return f"{WHOLE}`{POOLING}`"
    modes = said.get("pooling_mode") or [mode for key, mode in OLDER_MODES.items() if said.get(key)] or ["mean"]
    modes = [str(mode) for mode in modes] if isinstance(modes, list) else [str(modes)]
    asked = f"pooling by {' and '.join(f'`{mode}`' for mode in modes)}"
    return OF_MODES.get(modes[0], asked) if len(modes) == 1 else asked


def require_done(pooling: str) -> None:
    """Raise UnsupportedError for another one than MEAN, FIRST and LAST, BadFileError where a folder's files do not tell."""
    if pooling.startswith(WHOLE):
        raise BadFileError(
            f"the model's folder lacks {pooling}, which says how a text becomes one vector", hint="download it into that folder"
        )
    if pooling not in (MEAN, FIRST, LAST):
        raise UnsupportedError(
            f"embeddings of this model need {pooling}, which nomoat does not have",
            hint="choose a model that pools by the mean, the first or the last token; it writes text all the same",
        )


def _read(path: Path) -> Any:
    """What a JSON file holds; None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
