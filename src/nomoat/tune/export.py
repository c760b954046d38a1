"""A tuned model for other programs: one merged GGUF, or a LoRA GGUF beside the base.

Names and keys of a LoRA GGUF: llama.cpp's `convert_lora_to_gguf.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nomoat import paths
from nomoat.engine import arch as architectures
from nomoat.engine import importer, positions
from nomoat.engine.gguf import FloatArray, GGUFFile, parts_of
from nomoat.engine.source import open_source
from nomoat.errors import UnsupportedError
from nomoat.tune.adapter import layer_names

Quantisation = Literal["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16", "F32"]  # those the gguf package can write


def merged_gguf(
    weights: Path,
    adapter: Path,
    target: Path,
    *,
    quantisation: Quantisation = "Q8_0",
    template: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """The base's file with the adapter added to its weights, quantised anew. `progress`: (tensors done, tensors).

    Metadata (tokenizer, chat template) are the base's; `template` replaces its chat template.
    Raises BadFileError if the adapter does not fit, UnsupportedError for a base that is a Hugging Face folder, NotEnoughDiskError.
    """
    import gguf

    if weights.is_dir():
        raise UnsupportedError(
            f"`{weights}` is a Hugging Face folder, whose tokenizer nomoat cannot write into a GGUF file",
            hint="make a GGUF of the folder with llama.cpp's convert_hf_to_gguf.py, and export --form lora to run beside it; "
            "or merge the adapter's folder into it with PEFT (`merge_and_unload`)",
        )
    file = GGUFFile(weights)
    arch = architectures.find(str(file.require("general.architecture")))
    sizes = importer.read_sizes(file)
    delta = importer.LoraDelta(adapter)
    layers = layer_names(arch, sizes)
    kind = gguf.GGMLQuantizationType[quantisation]
    with paths.whole_file(target) as part:
        writer = gguf.GGUFWriter(str(part), arch.name)
        _copy_metadata(weights, writer, but=("tokenizer.chat_template",) if template is not None else ())
        if template is not None:
            writer.add_chat_template(template)
        for done, (name, tensor) in enumerate(file.tensors.items()):
            values = file.rows(name)
            if name in layers:
                change = delta(layers[name], np.arange(tensor.num_rows))
                values = values if change is None else values + _in_file_order(change, layers[name], arch, sizes)
            stored = kind if len(tensor.shape) > 1 else gguf.GGMLQuantizationType.F32
            if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[stored][0]:
                stored = gguf.GGMLQuantizationType.F16
            writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
            if progress:
                progress(done + 1, len(file.tensors))
        delta.require_all_used()
        _write(writer)
    return target


def lora_gguf(weights: Path, adapter: Path, target: Path) -> Path:
    """The adapter alone, for llama.cpp's `--lora`, beside a GGUF of the base.

    Raises BadFileError if it does not fit the base, UnsupportedError for an architecture that GGUF does not have.
    """
    import gguf

    file = open_source(weights)
    arch = architectures.find(str(file.require("general.architecture")))
    if arch.name not in gguf.MODEL_ARCH_NAMES.values():
        raise UnsupportedError(f"`{weights}` is of the architecture `{arch.name}`, which llama.cpp does not know")
    sizes = importer.read_sizes(file)
    delta = importer.LoraDelta(adapter)
    with paths.whole_file(target) as part:
        writer = gguf.GGUFWriter(str(part), arch.name)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, delta.alpha)
        for tensor, layer in layer_names(arch, sizes).items():
            matrices = delta.matrices(layer)
            if matrices is None:
                continue
            a_RI, b_OR = matrices
            writer.add_tensor(f"{tensor}.lora_a", np.ascontiguousarray(a_RI))
            writer.add_tensor(f"{tensor}.lora_b", np.ascontiguousarray(_in_file_order(b_OR, layer, arch, sizes)))
        delta.require_all_used()
        _write(writer)
    return target


def _in_file_order(rows: FloatArray, layer: str, arch: architectures.Architecture, sizes: architectures.Dimensions) -> FloatArray:
    """Rows of a layer as they lie in the file."""
    order = positions.row_order(arch, sizes, layer)
    return rows if order is None else rows[np.argsort(order)]


def _copy_metadata(weights: Path, writer: Any, *, but: tuple[str, ...] = ()) -> None:
    """Every key of the base, as it is, `but` those, and but what tells how the base was written."""
    import gguf

    how = ("GGUF.", "general.architecture", "general.alignment", "general.file_type", "general.quantization_version", "split.")
    left_out = (*how, *but)
    for field in gguf.GGUFReader(str(parts_of(weights)[0])).fields.values():
        if not field.name.startswith(left_out):
            inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
