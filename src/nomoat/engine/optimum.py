"""The other road, for architectures nomoat does not know: optimum-intel (the `convert` extra) exports a Hugging Face folder.

Its graph is OpenVINO's as ours are, in int8. What it cannot do: adapters are not baked into it, and nothing here compares its logits
with the reference.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import safetensors
from nomoat.engine.arch import Dimensions, known
from nomoat.engine.gguf import FloatArray, Rows, Tensor
from nomoat.engine.hf_config import plain_sizes
from nomoat.engine.imported import GRAPH, WEIGHTS
from nomoat.errors import BadFileError, UnsupportedError

# In a process of its own: PyTorch's memory is given back, and what it finds in the folder's name is not looked up elsewhere.
EXPORT = """
import sys
from nomoat.net import silence_telemetry
silence_telemetry()
from optimum.exporters.openvino import main_export
from optimum.intel import OVConfig, OVWeightQuantizationConfig
main_export(
    model_name_or_path=sys.argv[1], output=sys.argv[2], task="text-generation-with-past", convert_tokenizer=False,
    ov_config=OVConfig(quantization_config=OVWeightQuantizationConfig(bits=8, sym=True)),
)
"""


def is_installed() -> bool:
    """Whether the `convert` extra is there."""
    return importlib.util.find_spec("optimum") is not None and importlib.util.find_spec("optimum.intel") is not None


class ForeignFolder(safetensors.HubFolder):
    """A folder of an architecture that only optimum-intel knows; see `source.ModelSource`. Its tensors keep their own names."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        config = safetensors.read_config(folder)
        self.metadata: dict[str, Any] = {"general.architecture": str(config.get("model_type"))}
        self.tensors = {
            name: Tensor(name, stored.type_name, stored.values.shape, 0, stored.values.shape[-1] * stored.values.itemsize)
            for file in safetensors.weight_files(folder)
            for name, stored in safetensors.read_tensors(file, safetensors.is_weight)
            if stored.values.ndim
        }
        self.sizes: Dimensions = plain_sizes(config)

    def require(self, key: str) -> Any:
        """A metadata value that must be there."""
        if key not in self.metadata:
            raise self._closed()
        return self.metadata[key]

    def tensor(self, name: str) -> Tensor:
        """Its tensors are not read by us."""
        raise self._closed()

    def raw_rows(self, name: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Its tensors are not read by us."""
        raise self._closed()

    def rows(self, name: str, rows: Rows = None) -> FloatArray:
        """Its tensors are not read by us."""
        raise self._closed()

    def _closed(self) -> UnsupportedError:
        kind = self.metadata["general.architecture"]
        return UnsupportedError(
            f"`{self.path}` is of the architecture `{kind}`, which runs here but cannot be taken apart",
            hint=f"choose a model of an architecture that nomoat knows: {', '.join(sorted(known()))}",
        )

    def export(self, target: Path) -> None:
        """Write `openvino_model.xml` and `.bin`. Takes minutes and several times the model's memory. Raises UnsupportedError."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        command = [sys.executable, "-c", EXPORT, str(self.path.resolve()), str(target)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not (target / WEIGHTS).exists():
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UnsupportedError(
                f"optimum-intel cannot convert the architecture `{self.metadata['general.architecture']}` either: {last}",
                hint="try a GGUF file of another model: `nomoat models`",
            )
        for path in target.iterdir():
            if path.name not in (GRAPH, WEIGHTS):
                path.unlink()  # its own copies of config and tokenizer


def open_foreign(folder: Path, refused: UnsupportedError) -> ForeignFolder:
    """The folder for the other road, or the error of ours if that road is not there or the folder is not for it."""
    if not is_installed():
        raise refused
    try:
        return ForeignFolder(folder)
    except BadFileError:
        raise refused from None
