"""Which form weights are stored in, and which of OpenVINO's properties they are computed with: the fastest within a bound of quality.

The bound is on the mean KL divergence a token from the same file in float32, in passes of `batching`: 0.004 for `high`, 0.012 for
`default`, 0.08 for `small`. The rules below are those that held it and were fastest in benchmarks/results/ (`..._layouts_...`), over
texts of 1,000 tokens: shorter ones are less near, see docs/run.md.

What this does not cover: families, sizes and CPUs that were not measured follow the rules of those that were. Nothing is timed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nomoat import footprint, hardware
from nomoat.config import Quality
from nomoat.engine import arch as architectures
from nomoat.engine import imported, tiles
from nomoat.engine.arch import EXPERTS, GATED_MLP, ROUTERS, SHARED_EXPERT, SPLIT_QKV, Architecture, Dimensions
from nomoat.engine.gguf import Tensor
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.source import ModelSource
from nomoat.engine.weights import Form

ROWS = Form("int8")
GROUPS = Form("int8", 64)
TILES, TILES8 = Form("tiles"), Form("tiles8")
TABLES = ("lm_head", "embed_tokens")
# float32 throughout, for likelihoods with weights as the file has them
EXACT_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


@dataclass(frozen=True, slots=True)
class Storage:
    """How a model's matrices are stored. `forms`: by the end of a layer's name, the longest that fits; "" fits all.

    `fused`: layers that read the same input are one product. Faster; beside its weights adapters stand in nomoat's own passes alone.
    """

    quality: Quality
    forms: Mapping[str, Form]
    fused: bool
    reason: str

    def form(self, layer_name: str, tensor: Tensor, *, changed: bool) -> Form:
        """The form of one matrix. `changed`: its weights are not the file's any more, so the file's codes are none for it.

        What makes the weights of experts is small, and near ties would be chosen otherwise.
        """
        if layer_name.endswith(ROUTERS):
            return Form("float32")
        form = self.forms[max((end for end in self.forms if layer_name.endswith(end)), key=len)]
        if form.kind == "tiles":
            found = _tile_type(layer_name, tensor, changed=changed)
            return ROWS if found is None else TILES if found == tensor.type_name and not changed else TILES8
        return form if form.group == 0 or tensor.shape[-1] % form.group == 0 else ROWS

    @property
    def has_tiles(self) -> bool:
        """Whether nomoat's own products multiply by some of them."""
        return TILES in self.forms.values()

    @property
    def rounds_less(self) -> bool:
        """Whether prompts' weights are rounded in smaller chunks than at other qualities."""
        return self.has_tiles and self.quality == "high"

    @property
    def smallest_group(self) -> int:
        """0 if no matrix has groups."""
        return min((form.group for form in self.forms.values() if form.group), default=0)

    def as_dict(self) -> dict[str, Any]:
        """For `config.json`; `from_dict` reads it."""
        forms = {end: [form.kind, form.group] for end, form in self.forms.items()}
        return {"quality": self.quality, "forms": forms, "fused": self.fused, "reason": self.reason}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Storage:
        """Raises KeyError or TypeError for what `as_dict` did not write."""
        forms = {end: Form(*form) for end, form in found["forms"].items()}
        return cls(found["quality"], forms, found["fused"], found["reason"])

    def key(self) -> str:
        """Equal for equal storage, whatever the reason."""
        how = [*(["fine"] if self.rounds_less else []), "fused" if self.fused else "apart"]
        return "; ".join([imported.VERSION, *(f"{end}={form}" for end, form in self.forms.items()), *how])

    def bytes_of(self, file: ModelSource, sizes: Dimensions, changed: Collection[str] = ()) -> int:
        """What the matrices take, in memory and on disk. `changed`: tensors that an adapter is added to.

        In graphs of `fused` a gate and what it opens are one product: of two types, both are kept in whole bytes.
        """
        matrices, whole = {name: tensor for name, tensor in file.tensors.items() if tensor.is_matrix}, {*changed}
        for gate in matrices if self.has_tiles and self.fused and _usual_family(file, sizes) else ():
            both = {name for name in (gate, gate.replace("ffn_gate", "ffn_up")) if name in matrices}
            if len({self._type_in_tiles(matrices[name], changed=name in changed) for name in both}) > 1:
                whole |= both
        return sum(self.tensor_bytes(tensor, changed=name in whole) for name, tensor in matrices.items())

    def form_of(self, tensor: Tensor, *, changed: bool = False) -> Form:
        """The form of one matrix; `changed`: see `form`."""
        return self.form(_layer_name(tensor.name), tensor, changed=changed)

    def tensor_bytes(self, tensor: Tensor, *, changed: bool = False) -> int:
        """What one matrix takes."""
        form = self.form_of(tensor, changed=changed)
        if form.is_tiled:
            return tiles.size(self._type_in_tiles(tensor, changed=changed), tensor.num_rows, tensor.shape[-1])
        return form.bytes_of(tensor.num_rows, tensor.shape[-1])

    def _type_in_tiles(self, tensor: Tensor, *, changed: bool) -> str:
        return tensor.type_name if self.form_of(tensor, changed=changed).kind == "tiles" else tiles.WHOLE_BYTES

    def __str__(self) -> str:
        names = {"": "layers", "lm_head": "output", "embed_tokens": "embedding"}
        return ", ".join(f"{names.get(end, end)} {form}" for end, form in self.forms.items())


def _tile_type(layer_name: str, tensor: Tensor, *, changed: bool) -> str | None:
    """The type a matrix, or each expert's, has in tiles; None if it does not fit. The last tile of a table, which has a row a token,
    may be padded."""
    rows = tiles.padded(tensor.num_rows) if layer_name.endswith(TABLES) else tensor.shape[-2]
    return tiles.type_of(tensor.type_name, rows, tensor.shape[-1], changed=changed)


def _layer_name(tensor_name: str) -> str:
    """What ends the name of the layer that a tensor becomes."""
    name = tensor_name.removesuffix(".weight").rpartition(".")[2]
    layers = {tensor: layer for layer, tensor in (SPLIT_QKV | GATED_MLP | EXPERTS | SHARED_EXPERT).items()} | {
        "output": "lm_head",
        "token_embd": "embed_tokens",
    }
    return layers.get(name, name)


def chunk_told(stored: Storage, architecture: str) -> int:
    """Columns that share a scale where prompts are multiplied in 8 bits; 0: what is near enough for models of this width."""
    return tiles.FINE_CHUNK if stored.rounds_less or architecture.startswith(footprint.OUTLIERS) else 0


@dataclass(frozen=True, slots=True)
class Layout:
    """OpenVINO's CPU properties for a model, with the reason for each."""

    properties: dict[str, str]
    reasons: dict[str, str]

    @property
    def scoring_properties(self) -> dict[str, str]:
        """For likelihoods, which are compared with one another: in f32 always."""
        return self.properties | {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}


MEASURED = "on the CPUs that were measured"
AS_SMALL = 1.1  # times the bytes of the smallest form: for these the file's own codes are far nearer, and faster
EXACT = Storage("high", {"": Form("float32")}, fused=False, reason="every weight as the file has it")


def storage(file: ModelSource, sizes: Dimensions, quality: Quality, *, fused: bool = True) -> Storage:
    """How to store this file's matrices."""
    if isinstance(file, ForeignFolder):  # of an architecture that nomoat knows, too, where it refused the variant
        return Storage(quality, {"": ROWS}, fused=False, reason="optimum-intel writes int8 rows")
    types = Counter[str]()
    for tensor in file.tensors.values():
        types[tensor.type_name] += tensor.num_values
    if sum(types[name] for name in tiles.FOUR_BITS) > file.num_values / 2 and footprint.in_tiles(file.num_values, quality):
        return Storage(quality, {"": TILES}, fused, "nothing is rounded a second time, at half the memory of int8")
    is_small = file.num_values < footprint.FEW_WEIGHTS
    may_be_tiles = fused and not is_small and footprint.has_native_kernels() and (quality != "high" or sizes.experts)
    if may_be_tiles and _can_run_native(file, sizes):
        if sizes.experts:
            return Storage(quality, {"": TILES}, fused, "in tiles each token is multiplied by the experts it asks alone")
        why = f"{MEASURED} answers are written fastest from the file's own codes"
        own = Storage(quality, {"": TILES}, fused, f"{why}, which are as small" if quality == "small" else why)
        if quality == "default" or own.bytes_of(file, sizes) <= AS_SMALL * _smallest(fused).bytes_of(file, sizes):
            return own
    if quality == "small":
        return _smallest(fused)
    has_outliers = str(file.metadata.get("general.architecture", "")).startswith(footprint.OUTLIERS)
    form, why = ROWS, f"{MEASURED} int8 with a scale a row is the fastest form within the bound"
    if quality == "high":
        form, why = GROUPS, "int8 with a scale for every 64 inputs"
    elif has_outliers:
        form, why = GROUPS, "rows of this family hold outliers: a scale a row would break the bound"
    return Storage(quality, {"": form}, fused, why)


def _smallest(fused: bool) -> Storage:
    """The form of `small` that OpenVINO multiplies by."""
    forms = {"": Form("uint4", 64)} | dict.fromkeys((*TABLES, "down_proj", "v_proj"), ROWS)
    return Storage("small", forms, fused, "4 bits where the output changes least, int8 elsewhere")


def stands_beside(file: ModelSource, sizes: Dimensions, stored: Storage) -> bool:
    """Whether adapters can stand beside these weights, so that several share them: in nomoat's own passes, or by paged attention."""
    return (stored.has_tiles and _can_run_native(file, sizes)) or sizes.has_paged_attention


def _can_run_native(file: ModelSource, sizes: Dimensions) -> bool:
    """Whether `native` can run this model."""
    arch = _usual_family(file, sizes)
    return arch is not None and architectures.has_usual_attention(arch, sizes)


def _usual_family(file: ModelSource, sizes: Dimensions) -> Architecture | None:
    """Of a model that `fused` builds if its matrices are to be in tiles; else None."""
    arch = architectures.known().get(str(file.metadata.get("general.architecture")))
    if arch is None:
        return None
    arch = architectures.with_experts(arch, sizes.experts)
    matrices = [tensor for tensor in file.tensors.values() if tensor.is_matrix and _layer_name(tensor.name) not in ROUTERS]
    fit = all(_tile_type(_layer_name(tensor.name), tensor, changed=False) for tensor in matrices)
    return arch if fit and architectures.is_usual(arch, sizes) else None


def choose(sizes: Dimensions, stored: Storage, *, threads: hardware.Detected[int]) -> Layout:
    """The properties for this model on this CPU: those that were the fastest within the bound of quality where it was measured."""
    properties, reasons = {}, {}

    def decide(name: str, value: str, reason: str) -> None:
        properties[name], reasons[name] = value, reason

    decide("INFERENCE_NUM_THREADS", str(threads.value), threads.reason)
    if stored.has_tiles:
        decide("ENABLE_CPU_PINNING", "NO", "the threads of products with a file's own codes would all be kept on one core")
    if stored.quality == "high":
        decide("INFERENCE_PRECISION_HINT", "f32", "bf16 rounds more than the bound of `high` allows")
        decide("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0", "rounding inputs to 8 bits costs more than the bound of `high` allows")
        decide("KV_CACHE_PRECISION", "f16", "half the memory of f32, and as good")
        return Layout(properties, reasons)
    in_groups = stored.forms[""] == GROUPS
    hint = _precision()
    if in_groups or stored.has_tiles:
        hint = hardware.Detected(
            "f32", "in bf16 this family breaks the bound" if in_groups else "products of a file's own codes give f32"
        )
    decide("INFERENCE_PRECISION_HINT", hint.value, hint.reason)
    inputs = (sizes.width, sizes.hidden, sizes.heads * sizes.head_dim)
    groups = [size for size in (128, 64, 32) if size <= (stored.smallest_group or 128)]
    group = next((size for size in groups if all(columns % size == 0 for columns in inputs)), 0)
    decide("DYNAMIC_QUANTIZATION_GROUP_SIZE", str(group), "the largest group that divides every layer's input and a scale's group")
    decide("KV_CACHE_PRECISION", "bf16" if hint.value == "bf16" else "f16", "16 bits, as the rest is computed")
    return Layout(properties, reasons)


def _precision() -> hardware.Detected[str]:
    """The number format of everything but the products of codes. A rule, not a measurement: a busy machine measures wrongly."""
    if hardware.has_fast_avx512_bf16():
        return hardware.Detected("bf16", "measured on Zen 4: a prompt is read 12 to 23 % faster than in f32")
    if "avx512_bf16" in hardware.cpu_flags():
        return hardware.Detected("f32", "measured on Intel: answers come faster than in bf16, with AMX 1.2 to 1.5 times as fast")
    return hardware.Detected("f32", "this CPU has no bf16")
