"""A model's folder as the Hugging Face hub has it: which files make it, whoever reads or fetches them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nomoat.errors import BadFileError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"  # of weights in several files
WEIGHTS = "model.safetensors"  # in one
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as PEFT names them
ADAPTER_PICKLE = "adapter_model.bin"  # of an older PEFT
ADAPTER_INDEX = "adapter_model.safetensors.index.json"  # of transformers, in parts
CONFIG_FILES = (CONFIG, "generation_config.json", "tokenizer_config.json")
CHAT_TEMPLATE, TOOL_TEMPLATE = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"
MODULES, POOLING = "modules.json", "1_Pooling/config.json"  # sentence-transformers': how a text becomes one vector
NESTED = (TOOL_TEMPLATE, POOLING)  # in folders of their own
SPECIAL_TOKENS = "special_tokens_map.json"  # of an older transformers
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", SPECIAL_TOKENS, CHAT_TEMPLATE, TOOL_TEMPLATE
)  # fmt: skip
TERMS_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md")  # whoever passes weights on adds them
AGAIN = "download it again, or another copy of this model"
LFS_POINTER = b"version https://git-lfs"
WEIGHTS_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")


def adapter_weights(adapter: Path) -> Path:
    """The file of an adapter's matrices, be it a folder of PEFT's or a GGUF file."""
    return adapter if adapter.is_file() else adapter / ADAPTER_WEIGHTS


def read_object(path: Path, *, shown: str | None = None, hint: str = AGAIN) -> dict[str, Any]:
    """The object a JSON file holds. `shown`: what errors call the file; `hint`: what they say to do. Raises BadFileError."""
    name = shown or str(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters can be written with escapes, and nowhere else
    except OSError as exc:
        raise cannot_read(name, exc, if_absent=hint) from exc
    except (ValueError, RecursionError) as exc:
        raise BadFileError(f"`{name}` cannot be read: {exc}", hint=hint) from exc
    if not isinstance(content, dict):
        raise BadFileError(f"`{name}` holds no JSON object", hint=hint)
    return content


def cannot_read(name: Path | str, error: OSError, *, if_absent: str) -> BadFileError:
    """For a file that the system does not give. `if_absent`: what to do where it is not there."""
    hint = if_absent if isinstance(error, FileNotFoundError) else "check the disk, and who may read the file"
    return BadFileError(f"`{name}` cannot be read: {error.strerror or error}", hint=hint)


def require_fetched(path: Path) -> None:
    """Raise BadFileError for what Git leaves in a file's place until Git LFS has fetched the file."""
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise BadFileError(f"`{path}` is a pointer to the file, not the file", hint="fetch it: `git lfs pull` in its folder")


def weight_names(index: dict[str, Any]) -> list[str]:
    """The files of weights that an index names. Raises BadFileError for what is no list of files beside it."""
    found = index.get("weight_map")
    names = set(found.values()) if isinstance(found, dict) and all(isinstance(name, str) for name in found.values()) else set()
    strange = sorted(name for name in names if not WEIGHTS_NAME.fullmatch(name))
    if not names or strange:
        what = f"names `{strange[0][:80]}`, which is no file of weights beside it" if strange else "names no files of weights"
        raise BadFileError(f"`{INDEX}` {what}", hint=AGAIN)
    return sorted(names)
