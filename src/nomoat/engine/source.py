"""Weights on this disk, whatever their format: metadata under GGUF's keys, tensors under GGUF's names, rows in GGUF's order.

GGUF names and orders are the lingua franca of the engine: what reads another format translates into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from nomoat.engine.gguf import FloatArray, GGUFFile, Rows, Tensor, parts_of
from nomoat.errors import UnsupportedError

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer


class ModelSource(Protocol):
    """An opened model. `path` is what the user named."""

    path: Path
    metadata: dict[str, Any]
    notes: tuple[str, ...]  # what has to be known about its answers

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor by name."""
        ...

    @property
    def num_values(self) -> int:
        """Weights of all tensors."""
        ...

    def require(self, key: str) -> Any:
        """A metadata value that must be there. Raises BadFileError."""
        ...

    def tensor(self, name: str) -> Tensor:
        """A tensor that must be there. Raises BadFileError."""
        ...

    def raw_rows(self, name: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Rows of a tensor as their bytes, where its type has codes of its own. Raises UnsupportedError where it has none."""
        ...

    def rows(self, name: str, rows: Rows = None) -> FloatArray:
        """Rows of a tensor in float32: [rows, columns], or [columns] for a vector."""
        ...

    @property
    def chat_template(self) -> str | None:
        """Its own, without the vocabulary, which takes longer to read. Raises BadFileError."""
        ...

    @property
    def pooling(self) -> str:
        """How a text becomes one vector; see `pooling`."""
        ...

    def read_tokenizer(self) -> Tokenizer:
        """Its tokenizer. Raises UnsupportedError, BadFileError."""
        ...


WITH_WEIGHTS = "the file of the model's weights"
NO_MODELS = {  # by `general.type` or `general.architecture`: what a file is, and what to do
    "adapter": ("an adapter, no model", "name it with its base before it: BASE+FILE"),
    "mmproj": ("the part of a model that sees images, or hears", f"name {WITH_WEIGHTS}, which lies beside it: nomoat reads texts"),
    "imatrix": ("an importance matrix, which serves to quantise a model", f"name {WITH_WEIGHTS}"),
    "controlvector": ("a control vector, no model, and is not read", f"name {WITH_WEIGHTS}"),
}  # fmt: skip
NO_MODELS["clip"] = NO_MODELS["mmproj"]


def open_source(path: Path) -> ModelSource:
    """Open a GGUF file (any part of a split one), or a folder as the Hugging Face hub has it.

    What we cannot build from a folder is left to the `convert` extra, if it is installed.

    Raises BadFileError, UnsupportedError.
    """
    if path.is_dir():
        from nomoat.engine.gptoss_folder import GptOssFolder
        from nomoat.engine.optimum import open_foreign
        from nomoat.engine.safetensors import SafetensorsFolder, read_config

        try:
            return (GptOssFolder if read_config(path)["model_type"] == "gpt_oss" else SafetensorsFolder)(path)
        except UnsupportedError as refused:
            return open_foreign(path, refused)
    file = GGUFFile(path)
    _require_model(path, file)
    return file


def _require_model(path: Path, file: GGUFFile) -> None:
    """Raise UnsupportedError for a file that goes with a model, or is of one, and is none."""
    kinds = {str(file.metadata.get(key)) for key in ("general.type", "general.architecture")}
    for kind, (what, hint) in NO_MODELS.items():
        if kind in kinds:
            raise UnsupportedError(f"`{path}` is {what}", hint=hint)
    if not file.tensors and "tokenizer.ggml.tokens" in file.metadata:
        raise UnsupportedError(f"`{path}` is a vocabulary alone, and no model", hint=f"name {WITH_WEIGHTS}")


def files_of(path: Path) -> list[Path]:
    """The files whose bytes make the model, in a fixed order."""
    if path.is_dir():
        from nomoat.engine.safetensors import model_files

        return model_files(path)
    return parts_of(path)
