"""A tuned model for other programs: one merged GGUF, or a LoRA GGUF beside the base.

Names and keys of a LoRA GGUF: llama.cpp's `convert_lora_to_gguf.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nomoat import system_errors
from nomoat.catalog import licences, sidecar, tuned
from nomoat.catalog.licences import ChainVerdict
from nomoat.engine import arch as architectures
from nomoat.engine import importer, positions, tensor_check
from nomoat.engine.arch import EXPERTS, ROUTERS, SHARED_EXPERT, Architecture, Dimensions
from nomoat.engine.gguf import FloatArray, GGUFFile, Tensor, parts_of
from nomoat.engine.lora import OUTPUT, LoraDelta
from nomoat.engine.source import ModelSource, open_source
from nomoat.engine.tied_embeddings import head_tensor, output_tensor
from nomoat.errors import UnsupportedError
from nomoat.progress import Progress

Quantisation = Literal["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "BF16", "F16", "F32"]  # those the gguf package can write
# Keys, or how they begin, of which the tuned model has its own: who made the base did not make it.
OWN_KEYS = ("general.name", "general.finetune", "general.base_model.", "general.organization", "general.author", "general.license")
ROUTER_TENSORS = tuple(f".{(EXPERTS | SHARED_EXPERT)[part]}.weight" for part in ROUTERS)


def merged_gguf(
    weights: Path,
    adapter: Path,
    target: Path,
    *,
    quantisation: Quantisation = "Q8_0",
    templates: Mapping[str, str] | None = None,
    terms: ChainVerdict | None = None,
    progress: Progress | None = None,
) -> Path:
    """The base's file with the adapter added to its weights, quantised anew. `progress`: (tensors done, tensors).

    Metadata (tokenizer, chat templates) are the base's, but `OWN_KEYS`; `templates`, by their names, take the place of its own.
    `terms`: the tuned model's chain (`references.adapter_chain`), which is written beside the file, and into it: see `_claim`.
    Without it, the file claims no licence.
    Raises BadFileError if the adapter does not fit, UnsupportedError for a base that is a Hugging Face folder, NotEnoughDiskError.
    """
    import gguf

    if weights.is_dir():
        _require_in_gguf(architectures.of(open_source(weights)), weights)
        raise UnsupportedError(
            f"`{weights}` is a Hugging Face folder, whose tokenizer nomoat cannot write into a GGUF file",
            hint="make a GGUF of the folder with llama.cpp's convert_hf_to_gguf.py, and the adapter that runs beside it with "
            "`nomoat export --form lora`; or merge the adapter's folder into it with PEFT (`merge_and_unload`)",
        )
    file = GGUFFile(weights)
    arch, sizes, delta, layers = _fitted(file, adapter)
    output = output_tensor(file)
    kinds = {name: _stored_as(tensor, quantisation, is_output=name == output) for name, tensor in file.tensors.items()}

    def merged() -> Iterator[npt.NDArray[Any]]:
        for done, (name, kind) in enumerate(kinds.items()):
            values = file.rows(name)
            change = delta(layers[name], np.arange(len(values))) if name in layers else None
            values = values if change is None else values + _in_file_order(change, layers[name], arch, sizes)
            yield gguf.quants.quantize(values, kind)
            if progress:
                progress(done + 1, len(kinds))

    with sidecar.whole_with_chain(target, terms, _facts(weights, adapter)) as part:
        writer = gguf.GGUFWriter(str(part), arch.name)
        _copy_metadata(weights, writer, but=(*OWN_KEYS, *(("tokenizer.chat_template",) if templates is not None else ())))
        _name(writer, file, weights, adapter)
        _claim(writer, file, terms)
        writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if quantisation == 'F32' else 'MOSTLY'}_{quantisation}"])
        if templates is not None:
            writer.add_chat_template([{"name": name, "template": text} for name, text in templates.items()])
        for name, tensor in file.tensors.items():
            writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), _num_bytes(tensor, kinds[name]), raw_dtype=kinds[name])
        _write(writer, merged())
    return target


def lora_gguf(weights: Path, adapter: Path, target: Path, *, terms: ChainVerdict | None = None) -> Path:
    """The adapter alone, for llama.cpp's `--lora`, beside a GGUF of the base. `terms`: see `merged_gguf`.

    Raises BadFileError if it does not fit the base, UnsupportedError for an architecture that GGUF does not have.
    """
    import gguf

    file = open_source(weights)
    arch, sizes, delta, layers = _fitted(file, adapter)
    _require_in_gguf(arch, weights)
    with sidecar.whole_with_chain(target, terms, _facts(weights, adapter)) as part:
        writer = gguf.GGUFWriter(str(part), arch.name)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, delta.alpha)
        _name(writer, file, weights, adapter)
        _claim(writer, file, terms)
        matrices: list[FloatArray] = []
        for tensor, layer in layers.items():
            if (pair := delta.matrices(layer)) is not None:
                a_RI, b_OR = pair
                for end, matrix in (("a", a_RI), ("b", _in_file_order(b_OR, layer, arch, sizes))):
                    writer.add_tensor_info(f"{tensor}.lora_{end}", matrix.shape, matrix.dtype, matrix.nbytes)
                    matrices.append(matrix)
        _write(writer, matrices)
    return target


def _require_in_gguf(arch: Architecture, weights: Path) -> None:
    import gguf

    if arch.name not in gguf.MODEL_ARCH_NAMES.values():
        raise UnsupportedError(
            f"`{weights}` is of the architecture `{arch.name}`, which llama.cpp does not know", hint="`nomoat run` runs it as it is"
        )


def _name(writer: Any, file: ModelSource, weights: Path, adapter: Path) -> None:
    """What the exported file is called, and what it was made of, and by whom: programs list models by it."""
    base = file.metadata.get("general.name")
    base = base if isinstance(base, str) and base else weights.stem
    writer.add_name(f"{base}+{adapter.name}")
    writer.add_finetune(adapter.name)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, base)
    for key, add in (("organization", writer.add_base_model_organization), ("author", writer.add_base_model_author)):
        if isinstance(maker := file.metadata.get(f"general.{key}"), str) and maker:
            add(0, maker)


def _claim(writer: Any, file: ModelSource, terms: ChainVerdict | None) -> None:
    """The licence that an exported file claims: the base's claim, where every link of the chain but the user's own data has that very
    licence; otherwise what the chain says, which is the name of no licence. Sites and programs show it, and the sidecar may be gone.
    """
    if terms is None:
        return
    claimed = {key: text for key, text in file.metadata.items() if key.startswith("general.license") and isinstance(text, str)}
    if {link.licence for link in terms.links} - {licences.OWN} == {claimed.get("general.license", "").lower()}:
        for key, text in claimed.items():
            writer.add_string(key, text)
    else:
        writer.add_license("other")
        writer.add_license_name(f"commercial use: {licences.in_short(terms)}")


def _facts(weights: Path, adapter: Path) -> dict[str, Any]:
    """What is told beside an exported file of what it was made of, and of what it was asked: as in an adapter's `provenance.json`."""
    told = tuned.provenance_of(adapter)
    return {
        "adapter": adapter.name,
        "base_file": weights.name,
        "base_sha256": importer.sha256_of_model(weights),
        "data": {"question": tuned.question_of(told), "labels": tuned.labels_of(told)},
        "task": {"instruction": tuned.instruction_of(told)},
    }


def _fitted(file: ModelSource, adapter: Path) -> tuple[Architecture, Dimensions, LoraDelta, dict[str, str]]:
    """The base's architecture and sizes, what the adapter changes, and the layer each of its tensors belongs to.

    Raises BadFileError if the adapter changes a layer the base does not have, or one of other sizes, UnsupportedError for the output
    layer, which is none of these.
    """
    arch, sizes = architectures.of(file), importer.read_sizes(file)
    delta = LoraDelta(adapter).of_model(arch, sizes)
    layers = tensor_check.layer_names(arch, sizes)
    if OUTPUT in delta.layers:
        if len({*head_tensor(file)}) == 1:
            delta.require_other_than_output()
        raise UnsupportedError(
            f"`{delta.place}` changes the output layer (`{OUTPUT}`), and such an adapter cannot be exported",
            hint="merge it into its model with PEFT (`merge_and_unload`), and make a GGUF of that folder with llama.cpp's "
            "convert_hf_to_gguf.py",
        )
    for name, layer in layers.items():
        tensor = file.tensor(name)
        delta.require_fitting(layer, (tensor.num_rows, tensor.shape[-1]))
    delta.require_all_used()
    return arch, sizes, delta, layers


def _stored_as(tensor: Tensor, quantisation: Quantisation, *, is_output: bool) -> Any:
    """The type of a tensor in a merged file. What makes the weights of experts is small, and near ties would be chosen otherwise.

    What is written depends on the output matrix more than on any other: of 4 and 5 bits it has 8, as in files of llama.cpp.
    """
    import gguf

    wanted = "Q8_0" if is_output and quantisation.startswith(("Q4", "Q5")) else quantisation
    is_rounded = tensor.is_matrix and not tensor.name.endswith(ROUTER_TENSORS)
    kind = gguf.GGMLQuantizationType[wanted if is_rounded else "F32"]
    return gguf.GGMLQuantizationType.F16 if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] else kind


def _num_bytes(tensor: Tensor, kind: Any) -> int:
    import gguf

    weights, size = gguf.GGML_QUANT_SIZES[kind]
    return int(tensor.num_values // weights * size)


def _in_file_order(rows: FloatArray, layer: str, arch: Architecture, sizes: Dimensions) -> FloatArray:
    """Rows of a layer as they lie in the file."""
    order = positions.row_order(arch, sizes, layer)
    return rows if order is None else rows[np.argsort(order)]


def _copy_metadata(weights: Path, writer: Any, *, but: tuple[str, ...]) -> None:
    """Every key of the base, as it is, `but` those, what tells how the base was written, and empty arrays, which cannot be written."""
    import gguf

    how = ("GGUF.", "general.architecture", "general.alignment", "general.file_type", "general.quantization_version", "split.")
    left_out = (*how, *but)
    for field in gguf.GGUFReader(str(parts_of(weights)[0])).fields.values():
        if not field.name.startswith(left_out) and field.data:
            inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, _value_of(field), field.types[0], sub_type=inner)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _value_of(field: Any) -> Any:
    """What a key of the file says; texts as bytes: some are no UTF-8."""
    import gguf

    if field.types[-1] is not gguf.GGUFValueType.STRING:
        return field.contents()
    texts = [field.parts[at].tobytes() for at in field.data]
    return texts if field.types[0] is gguf.GGUFValueType.ARRAY else texts[0]


def _write(writer: Any, tensors: Iterable[npt.NDArray[Any]]) -> None:
    """The whole file. `tensors`: in the order in which the writer was told of them; one is in memory at a time.

    The writer's own way is numpy's `tofile`, which may lose the last bytes on a full disk and not say so.
    """
    system_errors.require_free_disk(writer.path.parent, sum(info.nbytes for info in writer.tensors[0].values()))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        (out,) = writer.fout
        writer.write_padding(out, out.tell())
        for tensor in tensors:
            out.write(np.ascontiguousarray(tensor))
            writer.write_padding(out, tensor.nbytes)
    finally:
        writer.close()
