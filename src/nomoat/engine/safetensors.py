"""Reading a Hugging Face folder (`config.json`, `*.safetensors`, a tokenizer) as if it were the GGUF file made of it.

What differs from family to family stands in `hf_families.py`. Format of the weights: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import mmap
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from nomoat.engine import arch as architectures
from nomoat.engine import ollama_files, pooling
from nomoat.engine.gguf import FloatArray, Opened, Rows, Tensor, require_weights, row_numbers, rows_by_expert
from nomoat.engine.hf_config import quantised_by, read_metadata, require_kinds, scaling_tensors
from nomoat.engine.hf_families import FAMILIES, Family, opt_name, row_order
from nomoat.engine.imported import GRAPH
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.hub_folder import (
    ADAPTER_CONFIG,
    CONFIG,
    CONFIG_FILES,
    INDEX,
    MODULES,
    POOLING,
    SPECIAL_TOKENS,
    TOKENIZER_FILES,
    WEIGHTS,
    read_object,
    require_fetched,
    weight_names,
)

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
LONGEST_COPIED = 1 << 28  # bytes; adapters are shorter
MAX_LAYERS = 1000
LEAST_OF_A_LAYER = 4  # matrices: queries, keys and values in one; after attention; up and down
COMPARED = 1 << 22  # bytes at a time
A_PART = re.compile(r"model-\d+-of-\d+\.safetensors")
PICKLED = re.compile(r"pytorch_model.*\.bin")
OF_AN_EXPERT = re.compile(r"(.+\.experts\.)(\d{1,4})\.(.+)")
GATES_AND_UPS = re.compile(r"(.+\.)(?:mlp\.experts\.gate_up_proj|block_sparse_moe\.input_linear\.weight)")
# what old checkpoints keep beside their weights: masks and rotation tables
NOT_WEIGHTS = (".attn.bias", ".attention.bias", ".masked_bias", ".inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
# what folders whose weights are codes keep of these
NAMES_OF_CODES = (
    "qweight", "qzeros", "scales", "weight_scale", "scale_inv", "input_scale", "g_idx", "SCB", "absmax", "quant_map"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as it lies in its file: `values` in the file's own type, BF16 as its 16 bits."""

    values: npt.NDArray[Any]
    type_name: str


def as_numbers(values: npt.NDArray[Any], type_name: str, *, what: str) -> FloatArray:
    """A tensor's values as float32. Raises BadFileError, see `require_weights`."""
    numbers = (values.astype(np.uint32) << 16).view(np.float32) if type_name == "BF16" else values.astype(np.float32)
    require_weights(numbers, what=what)
    return np.asarray(np.ascontiguousarray(numbers))


class Readable(Protocol):
    """What a folder has under a GGUF name."""

    @property
    def type_name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def row_bytes(self) -> int: ...

    def rows(self, rows: Rows, *, what: str) -> FloatArray:
        """Of all experts one after another. Raises BadFileError, which says `what` they are, see `require_weights`."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A tensor under its GGUF name: rows picked by `order`, after transposing if `transposed`, plus `offset`."""

    stored: Stored
    order: npt.NDArray[np.intp] | None = None
    transposed: bool = False
    offset: float = 0.0

    @property
    def type_name(self) -> str:
        return self.stored.type_name

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] * self.stored.values.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.stored.values.shape[::-1] if self.transposed else self.stored.values.shape
        return shape if self.order is None else (len(self.order), *shape[1:])

    def rows(self, rows: Rows, *, what: str) -> FloatArray:
        values = self.stored.values.T if self.transposed else self.stored.values
        if self.order is not None:
            values = values[self.order if rows is None else self.order[rows]]
        elif rows is not None:
            values = values[rows]
        return as_numbers(values, self.stored.type_name, what=what) + np.float32(self.offset)


@dataclass(frozen=True, slots=True)
class OfExperts:
    """A tensor of a mixture of experts: the matrix of each of them, all of one shape."""

    parts: Sequence[Stored]

    @property
    def type_name(self) -> str:
        return self.parts[0].type_name

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.parts), *self.parts[0].values.shape)

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] * self.parts[0].values.itemsize

    def rows(self, rows: Rows, *, what: str) -> FloatArray:
        def read(expert: int, within: npt.NDArray[np.intp]) -> FloatArray:
            return as_numbers(self.parts[expert].values[within], self.parts[expert].type_name, what=what)

        of_one = self.shape[1]
        return rows_by_expert(row_numbers(rows, len(self.parts) * of_one), of_one, read)


def _by_expert(name: str, stored: Stored) -> Iterator[tuple[str, int, Stored]]:
    """A tensor of experts as a matrix of each, under the name of all; nothing for any other.

    Folders have a tensor for each matrix, one for all experts' (`transformers` 5), or one of their gates and what these open
    (Granite).
    """
    if found := OF_AN_EXPERT.fullmatch(name):
        yield f"{found[1]}{found[3]}", int(found[2]), stored
    elif stored.values.ndim == 3:
        halved = GATES_AND_UPS.fullmatch(name)
        half = stored.values.shape[1] // 2
        for number, values in enumerate(stored.values):
            if halved:
                yield f"{halved[1]}mlp.experts.gate_proj.weight", number, replace(stored, values=values[:half])
                yield f"{halved[1]}mlp.experts.up_proj.weight", number, replace(stored, values=values[half:])
            else:
                yield f"{name.removesuffix('.weight')}.weight", number, replace(stored, values=values)


def weight_files(folder: Path) -> list[Path]:
    """The files of weights: the whole one before those of the index, as `transformers` takes them, which leaves an old index behind.

    Raises BadFileError if there are none, or if one that the index names is missing.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file():
        return [whole]
    if index.exists():
        names = weight_names(read_object(index))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise BadFileError(
                f"`{folder}` lacks {len(missing)} of its {len(names)} files of weights: {', '.join(missing[:3])}",
                hint="download them into that folder",
            )
        return [folder / name for name in names]
    raise _without_weights(folder)


def _without_weights(folder: Path) -> BadFileError:
    """The error for a folder without the files of weights that `transformers` writes, which says what there is in their place."""
    names = sorted(path.name for path in folder.iterdir())
    if parts := [name for name in names if A_PART.fullmatch(name)]:
        return BadFileError(f"`{folder}` holds `{parts[0]}` and no `{INDEX}`, which names them all", hint="download that, too")
    if own := next((name for name in names if name.startswith("consolidated.")), None):
        hint = "take the files of the same repository that transformers reads: `config.json`, `model*.safetensors` and a tokenizer"
        return BadFileError(f"`{folder}` holds its weights in their maker's own form, `{own}`", hint=hint)
    other = next((name for name in names if PICKLED.fullmatch(name)), None)
    hint = _other_model(folder) or "nomoat reads safetensors folders of the Hugging Face hub, and GGUF files"
    if other is not None:
        this = repr(str(folder))
        hint = f"write it with transformers, in Python: `AutoModelForCausalLM.from_pretrained({this}).save_pretrained({this})`"
    return BadFileError(f"`{folder}` holds no `{WEIGHTS}`" + (f", only `{other}`" if other else ""), hint=hint)


def _other_model(folder: Path) -> str | None:
    """What to name in place of a folder that is no model, and that holds one."""
    within = (path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))  # LM Studio's: PUBLISHER/MODEL/FILE
    files = [path for path in within if path.suffix.lower() == ".gguf" and "mmproj" not in path.name.lower() and path.is_file()]
    snapshot = next(folder.glob(f"snapshots/*/{CONFIG}"), None)
    if files and (snapshot is None or files[0].parent == folder):
        return f"name the file in it: `{files[0]}`" + (f", or another of the {len(files)}" if len(files) > 1 else "")
    return ollama_files.hint(folder) if snapshot is None else f"name the folder of the model in it: `{snapshot.parent}`"


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` says, of the part that writes text. Raises BadFileError."""
    path = folder / CONFIG
    if not path.exists():
        if (folder / ADAPTER_CONFIG).exists():
            raise BadFileError(f"`{folder}` is an adapter, no model", hint=f"name its base before it: BASE+{folder}")
        raise BadFileError(
            f"`{folder}` is no model: it has no `{CONFIG}`",
            hint=_other_model(folder) or "name a GGUF file, or a folder as the Hugging Face hub has it",
        )
    if (folder / GRAPH).is_file() and not any((folder / name).exists() for name in (WEIGHTS, INDEX)):
        raise BadFileError(
            f"`{folder}` is converted to OpenVINO already (`{GRAPH}`), and nomoat converts by itself",
            hint=f"name the folder that it was made of, which holds `{WEIGHTS}`, or a GGUF file of the model",
        )
    return _text_part(read_object(path))


def require_known(config: dict[str, Any]) -> None:
    """Raise UnsupportedError or BadFileError if nomoat cannot build the model of this `config.json`."""
    _known(_text_part(config))


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    inner, kind = config.get("text_config"), config.get("model_type")
    unsaid = FAMILIES[kind].unsaid if isinstance(kind, str) and kind in FAMILIES else {}
    said = {**config, **(inner if isinstance(inner, dict) else {})}
    if config.get("tie_word_embeddings") is not None:  # `transformers` ties the whole model's matrices, whatever the part says
        said["tie_word_embeddings"] = config["tie_word_embeddings"]
    if said.get("rope_parameters"):  # says what the older `rope_scaling` says
        unsaid = {name: value for name, value in unsaid.items() if name != "rope_scaling"}
    return {**unsaid, **said, "model_type": kind}


def _known(config: dict[str, Any]) -> tuple[Family, dict[str, Any]]:
    """The family, and the metadata that a GGUF file of this model would hold. Raises UnsupportedError, BadFileError."""
    if not isinstance(kind := config.get("model_type"), str):
        raise BadFileError(f"its `{CONFIG}` does not say `model_type`, which names the architecture", hint="download it again")
    if kind not in FAMILIES:
        raise architectures.unknown(kind)
    require_kinds(config)
    return FAMILIES[kind], read_metadata(config, FAMILIES[kind])


def model_files(folder: Path) -> list[Path]:
    """Every file that the imported model depends on. Raises BadFileError for what is no such folder."""
    from nomoat.engine import folder_tokenizer

    read_config(folder)
    unread = () if folder_tokenizer.reads_special_tokens(folder) else (SPECIAL_TOKENS,)
    facts = [folder / name for name in (*CONFIG_FILES, *TOKENIZER_FILES, MODULES, POOLING) if name not in unread]
    return [*(path for path in facts if path.is_file()), *weight_files(folder)]


class HubFolder(Opened):
    """A folder as the Hugging Face hub has it."""

    path: Path

    @property
    def chat_template(self) -> str | None:
        """See `ModelSource`."""
        from nomoat.engine import folder_tokenizer

        return folder_tokenizer.chat_templates(self.path)[0]

    @property
    def pooling(self) -> str:
        """See `ModelSource`."""
        return pooling.of_folder(self.path)

    def read_tokenizer(self) -> Tokenizer:
        """Its tokenizer. Raises UnsupportedError, BadFileError."""
        from nomoat.engine import folder_tokenizer

        return folder_tokenizer.read(self.path)


def _notes(method: str | None, *, writes: bool) -> tuple[str, ...]:
    """`method`: see `quantised_by`. `writes`: whether there is an output layer, be it the embedding."""
    rounded = f"`config.json` says that weights are quantised by `{method}`; they are read as the folder has them"
    mute = (
        "the folder holds no output layer (`lm_head`), which is not its embedding, either (`tie_word_embeddings`): it is a model for "
        "embeddings, or not whole, and what it writes, and its likelihoods, mean nothing"
    )
    return (*([] if method is None else [rounded]), *([] if writes else [mute]))


class SafetensorsFolder(HubFolder):
    """A folder opened for reading; see `source.ModelSource`.

    Raises BadFileError for what is not whole, UnsupportedError for architectures and variants nomoat does not know.
    """

    codes_read: ClassVar[str | None] = None  # the method whose codes are read, see `quantised_by`

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.config = read_config(folder)
        self.family, self.metadata = _known(self.config)
        method = quantised_by(self.config)
        self._method = None if method == self.codes_read else method
        self._tensors: dict[str, Readable] = {}
        self._read()
        self.notes = _notes(self._method, writes="output.weight" in self._tensors or bool(self.config.get("tie_word_embeddings")))
        if self.config.get("tie_word_embeddings") and "output.weight" in self._tensors:
            self._tie()
        for name, factors in scaling_tensors(self.config).items():
            self._tensors[name] = Translated(Stored(factors, "F32"))
        self.tensors = {
            name: Tensor(name, tensor.type_name, tensor.shape, 0, tensor.row_bytes) for name, tensor in self._tensors.items()
        }

    def _read(self) -> None:
        """Every tensor of the files."""
        folder, hint = self.path, self._hint_on_codes()
        stored = {name: tensor for file in weight_files(folder) for name, tensor in read_tensors(file, self._is_read, other_type=hint)}
        layers = self.metadata.get(f"{self.family.arch}.block_count")
        most = min(len(stored) // LEAST_OF_A_LAYER, MAX_LAYERS)
        if type(layers) is not int or not 0 < layers <= most:
            said = f"`{folder / CONFIG}` says {layers!r} layers, and {len(stored):,} tensors make {most:,} at most"
            raise BadFileError(said, hint="download it again")
        self._names = _gguf_names(self.family.arch, layers)
        experts: dict[str, dict[int, Stored]] = {}
        for name, tensor in stored.items():
            by_expert = list(_by_expert(name, tensor))
            for whole, number, part in by_expert:
                experts.setdefault(self._require_name(whole), {})[number] = part
            if not by_expert:
                self._add(name, tensor)
        for name, by_number in experts.items():
            self._join(name, [by_number[number] for number in sorted(by_number)], highest=max(by_number))

    def _is_read(self, name: str) -> bool:
        return is_weight(name) and not name.removeprefix("model.").startswith(self.family.unread)

    def _require_name(self, name: str) -> str:
        """The name that GGUF files give it."""
        if (target := self._gguf_name(name)) is None:
            raise self._strange(name)
        return target

    def _strange(self, name: str) -> UnsupportedError:
        on_codes = self._hint_on_codes() if name.endswith(NAMES_OF_CODES) else None
        return UnsupportedError(
            f"`{self.path}` holds the tensor `{name}`, which the architecture `{self.family.arch}` does not have",
            hint=on_codes or "it is a variant that nomoat would answer wrongly; try a GGUF file of it",
        )

    def _hint_on_codes(self) -> str | None:
        """What to do about weights that are codes; None where `config.json` names no method, or one whose codes are read."""
        if self._method is None:
            return None
        return f"its weights are quantised by `{self._method}`: take the model they were made from, or a GGUF file of it"

    def _join(self, target: str, parts: list[Stored], *, highest: int) -> None:
        shapes = {part.values.shape for part in parts}
        if len(parts) != highest + 1 or len(shapes) > 1 or len(min(shapes)) != 2:
            raise BadFileError(
                f"`{self.path}` holds {len(parts)} matrices of experts, the last of which is number {highest}, that GGUF would call "
                f"`{target}`, of the shapes {', '.join(map(str, sorted(shapes)))}",
                hint="download it again",
            )
        self._tensors[target] = OfExperts(parts)

    def _add(self, name: str, stored: Stored) -> None:
        target = self._require_name(name)
        if not stored.values.ndim:
            raise BadFileError(f"`{self.path}` holds a single number as `{name}`", hint="download it again")
        base, _, suffix = target.rpartition(".")
        part = base.rpartition(".")[2]
        transposed = part in self.family.transposed and suffix == "weight"
        try:
            order = row_order(self.family, self.config, base, stored.values.shape[-1 if transposed else 0])
        except (ValueError, IndexError) as exc:
            raise BadFileError(f"`{self.path}` says sizes that its tensor `{name}` does not have", hint="download it again") from exc
        offset = self.family.norm_offset if suffix == "weight" and "norm" in part else 0.0
        self._tensors[target] = Translated(stored, order, transposed, offset)

    def _tie(self) -> None:
        """Keep one of the two matrices that `config.json` says to be one, unless they are not."""
        output = self._tensors["output.weight"]
        embedding = self._tensors.setdefault("token_embd.weight", output)
        if output.shape != embedding.shape:
            raise self._untied(output, embedding)
        if output is embedding or _are_equal(output, embedding):
            del self._tensors["output.weight"]

    def _untied(self, output: Readable, embedding: Readable) -> BadFileError:
        files = ((name, file) for file in weight_files(self.path) for name, _ in read_tensors(file, self._is_read))
        name, file = next((name, str(file)) for name, file in files if self._gguf_name(name) == "output.weight")
        code = (  # not `load_file`, which maps the file into memory: Windows writes over no such file
            f"from pathlib import Path; from safetensors.torch import load, save_file; weights = load(Path({file!r}).read_bytes()); "
            f"del weights[{name!r}]; save_file(weights, {file!r}, metadata={{'format': 'pt'}})"
        )
        found, wanted = (" x ".join(map(str, tensor.shape)) for tensor in (output, embedding))
        return BadFileError(
            f"`{self.path}` says that its output layer is its embedding (`tie_word_embeddings`), and holds `{name}` of another "
            f"shape: {found}, and the embedding is {wanted}",
            hint=f"if the embedding is what was trained, save the weights again without the other, in Python: `{code}`",
        )

    def _gguf_name(self, name: str) -> str | None:
        if self._names is None:
            return opt_name(name)
        bare = name.removeprefix("model.language_model.").removeprefix("language_model.").removeprefix("transformer.")
        if bare == "lm_head.weight":  # the map has none for Gemmas, whose one matrix lies under that name where `save_model` wrote it
            return "output.weight"
        candidates = (name, bare, f"transformer.{bare}", f"model.{bare}")
        found = (self._names.get_name(candidate, try_suffixes=(".weight", ".bias")) for candidate in candidates)
        return next((str(target) for target in found if target), None)

    def require(self, key: str) -> Any:
        """A metadata value that must be there."""
        if key not in self.metadata:
            raise BadFileError(f"`{self.path / 'config.json'}` does not say what GGUF calls `{key}`", hint="download it again")
        return self.metadata[key]

    def tensor(self, name: str) -> Tensor:
        """A tensor that must be there."""
        if name not in self.tensors:
            raise BadFileError(f"`{self.path}` has no tensor that GGUF would call `{name}`", hint="the folder is not complete")
        return self.tensors[name]

    def raw_rows(self, name: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Not for these: their types have no codes."""
        raise UnsupportedError(
            f"tensor `{name}` of `{self.path}` is of the type {self.tensor(name).type_name}, which has no codes",
            hint="give a GGUF file of this model",
        )

    def rows(self, name: str, rows: Rows = None) -> FloatArray:
        """Rows of a tensor in GGUF's order: [rows, columns], or [columns] for a vector."""
        self.tensor(name)
        return self._tensors[name].rows(rows, what=f"tensor `{name}` of `{self.path}`")


def _gguf_names(arch: str, layers: int) -> Any:
    """The `gguf` package's map of names; None for OPT, which it does not know."""
    import gguf

    if arch == "opt":
        return None
    kind = next(kind for kind, known in gguf.MODEL_ARCH_NAMES.items() if known == arch)
    return gguf.get_tensor_name_map(kind, layers)


def _are_equal(one: Readable, other: Readable) -> bool:
    """Whether two tensors of one shape are the same bytes. Nothing is copied."""
    if not (isinstance(one, Translated) and isinstance(other, Translated) and one.type_name == other.type_name):
        return False
    raw, others = (tensor.stored.values.reshape(-1).view(np.uint8) for tensor in (one, other))
    return all(np.array_equal(raw[at : at + COMPARED], others[at : at + COMPARED]) for at in range(0, len(raw), COMPARED))


def is_weight(name: str) -> bool:
    """Whether a tensor of that name is anything but what a model computes itself."""
    return not name.endswith(NOT_WEIGHTS)


def _content(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """The file's bytes, mapped; on Windows those of an adapter are copied: it keeps what is mapped from being replaced or removed."""
    if sys.platform == "win32" and size <= LONGEST_COPIED:
        return np.fromfile(path, np.uint8)
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def read_tensors(
    path: Path, is_wanted: Callable[[str], bool] | None = None, *, hint: str = "download it again, and compare its size",
    types: Mapping[str, str] = TYPES, other_type: str | None = None,
) -> Iterator[tuple[str, Stored]]:  # fmt: skip
    """Each tensor where it lies, or those that are wanted; nothing is copied. What is not wanted may be of any type.

    `hint`: what to do about a file that is not whole. `types`: of wanted ones, as numpy has them; `other_type`: what to do about
    one of another, where more is known than its type.

    Raises BadFileError for sizes the file does not have, UnsupportedError for types of numbers nomoat cannot read.
    """

    def broken(why: str) -> BadFileError:
        return BadFileError(f"`{path}` is not a whole safetensors file: {why}", hint=hint)

    size = path.stat().st_size
    if size < 10:
        raise broken(f"it has {size} bytes")
    require_fetched(path)
    content = _content(path, size)
    header_bytes = int.from_bytes(content[:8].tobytes(), "little")
    if header_bytes > min(size - 8, MAX_HEADER_BYTES):
        raise broken(f"its header claims {header_bytes:,} bytes")
    start = 8 + header_bytes
    try:
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        for name, facts in header.items():
            kind, shape, (begin, end) = facts["dtype"], facts["shape"], facts["data_offsets"]
            if not 0 <= begin <= end <= size - start:
                raise broken(f"tensor `{name}` ends at byte {start + end:,}, and the file has {size:,}")
            if is_wanted is not None and not is_wanted(name):
                continue
            if kind not in types:
                raise UnsupportedError(
                    f"tensor `{name}` of `{path}` has the type {kind}, which nomoat cannot read",
                    hint=other_type
                    or f"it reads {', '.join(types)}; of quantised weights take the model they were made from, or a GGUF file",
                )
            yield name, Stored(content[start + begin : start + end].view(types[kind]).reshape(shape), kind)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise broken(f"its header is damaged ({exc})") from exc
