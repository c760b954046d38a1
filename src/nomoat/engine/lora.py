"""LoRA adapters: the matrices of a folder of PEFT's, or of a GGUF file, and what they add to a model's weights."""

from __future__ import annotations

import copy
import functools
import json
import math
import re
from collections.abc import Collection, KeysView
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nomoat import paths
from nomoat.engine import expert_lora, gguf_lora, peft_names
from nomoat.engine.arch import EXPERTS, ROUTERS, Architecture, Dimensions
from nomoat.engine.gguf import LARGEST_WEIGHT, FloatArray, rows_by_expert
from nomoat.engine.safetensors import Stored, as_numbers, read_tensors
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.hub_folder import ADAPTER_CONFIG, ADAPTER_INDEX, ADAPTER_PICKLE, ADAPTER_WEIGHTS, adapter_weights, cannot_read, read_object
from nomoat.words import counted, first_few

if TYPE_CHECKING:
    import regex

OTHER_BASE = "an adapter fits only the model it was tuned on"
ITS_BASE = "base_model_name_or_path"  # what PEFT, and `nomoat tune`, call that model in the config
AGAIN = "tune it again with `nomoat tune`, or download it again"
MERGE = "merge the adapter into its model with PEFT (`merge_and_unload`), and run that folder"
MERGE_UNLESS_TIED = (
    f"{MERGE}, unless the model's output layer is its embedding, too (`tie_word_embeddings`): merging would change both; "
    "tune an adapter without them among its target modules then"
)
MERGE_WITH_BIASES = f"{MERGE}, if each of these layers has a bias there; PEFT cannot otherwise: tune one without `lora_bias` then"
NO_MERGE = "PEFT cannot merge such a one into its model: ask PEFT for its answers, or tune a LoRA (`nomoat tune`)"
# what makes more of an adapter than its matrices, or has matrices of another form, and whether PEFT can merge it
MORE_THAN_MATRICES = {"use_dora": True, "layer_replication": False, "use_qalora": False, "use_bdlora": True}
# Target modules that are one matrix in many models. A copy of one that was tuned whole (`modules_to_save`) PEFT merges rightly.
EMBEDDING_OR_OUTPUT = re.compile(r"embed|wte|lm_head")
# kinds without a `merge_and_unload` that would do, in PEFT 0.21
CANNOT_MERGE = (
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "SHADOW",
    "XLORA",
)  # fmt: skip
# `init_lora_weights` that take a part out of the base. Where PEFT converts an adapter to the whole base, it writes `true` instead
CHANGES_ITS_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
A, B = ".lora_A.weight", ".lora_B.weight"  # names of matrices end so
OUTPUT = "lm_head"
# The output layer as it was before, which PEFT saves beside the matrices that change it, though it is not learned.
COPY = re.compile(r"base_model\.model\.((?:.+\.)?lm_head)\.base_layer\.(weight|bias)")
# A matrix's name within PEFT has the adapter's own in it, and so has a state that a trainer saves, which PEFT reads as well.
WITH_ITS_NAME = re.compile(r"(\.lora_[AB])\.([^.]+)(?=\.weight$)")
NAMED = 3  # in a message
LARGEST_RANK = 1 << 20  # no layer is as wide
# What regular expressions of a config may cost; the names of layers take microseconds. A count behind a letter or a class repeats no
# other, which one behind a bracket may.
REPEATED = re.compile(r"(?P<alone>(?<=[\w.\]]))?\{(?:\d*,)?(?P<times>\d+),?\}")
MOST_WRITTEN, LONGEST_MATCH = 100_000, 0.1  # letters, seconds
TAKES_LONG = "a regular expression that takes too long"
USUAL_SCALE = 2.0  # alpha / rank, as `nomoat tune` writes them


class LoraDelta:
    """What a LoRA, PEFT's folder or a GGUF file, adds to each layer's rows: `scale * B @ A`. Layers may differ in rank and scale.

    Its layers have the names they have there, and their rows lie as there, until it is `of_model`.

    Shapes: R rank, I input, O output; A_RI, B_OR; of a mixture's E experts, one after another, A_ERI, B_EOR.
    Raises BadFileError for what is not a LoRA of plain linear layers.
    """

    def __init__(self, place: Path, *, header_only: bool = False) -> None:
        """`header_only`: no weight of a folder is read or checked, for who asks only whether the rest of it is sound."""
        self.place, self.weights_path = place, adapter_weights(place)
        self._names: Any = gguf_lora if self.weights_path == place else peft_names
        scaling, stored = gguf_lora.read(place) if self._names is gguf_lora else (_Scaling(place), _read_stored(place))
        self._scaling = scaling
        self._other_base = OTHER_BASE + (f", `{scaling.base}`" if scaling.base else "")  # a hint
        self.alpha = scaling.of_layer("", scaling.rank) * scaling.rank or 1.0  # as others have it, who divide it by the rank
        _require_partners(self.weights_path, stored)
        tensors = {
            name: found.values if header_only else self._numbers(name, found)
            for name, found in stored.items()
            if not COPY.fullmatch(name)
        }
        self._pairs: dict[str, tuple[FloatArray, FloatArray]] = {}
        for name, a_RI in tensors.items():
            if name.endswith(A):
                layer = name.removeprefix("base_model.model.").removesuffix(A)
                self._pairs[layer] = (a_RI, tensors[name.removesuffix(A) + B])
        self._require_fitting_pairs()
        self._scales = {layer: scaling.of_layer(layer, len(a_RI)) for layer, (a_RI, _) in self._pairs.items()}
        parameters = [name for layer in self._pairs for name in expert_lora.parameters(layer)] if scaling.has_patterns else []
        self._told_scales = self._scales | {name: scaling.of_layer(name, 1) for name in parameters}
        self._unused = set(self._pairs)
        self._copies = {
            found[2]: (name, stored[name]) for name in stored if (found := COPY.fullmatch(name)) and found[1] in self._pairs
        }
        copied = {name for name, _ in self._copies.values()}
        strange = next((name for name in stored if not name.endswith((A, B)) and name not in copied), None)
        if strange:
            raise BadFileError(
                f"`{self.weights_path}` holds `{strange}`, which is no LoRA matrix of a layer: answers would be wrong without it",
                hint=_how_to_merge(read_object(place / ADAPTER_CONFIG, hint=AGAIN)),
            )
        if not self._pairs:
            raise BadFileError(f"`{self.weights_path}` holds no LoRA matrices", hint=AGAIN)

    def _require_fitting_pairs(self) -> None:
        for layer, (a_RI, b_OR) in self._pairs.items():
            if a_RI.ndim != 2 or b_OR.ndim != 2 or len(a_RI) != b_OR.shape[1] or not len(a_RI):
                both = f"{list(a_RI.shape)} and {list(b_OR.shape)}"
                raise BadFileError(f"the matrices of `{layer}` in `{self.weights_path}` do not go together: {both}", hint=AGAIN)

    def _numbers(self, name: str, found: Stored) -> FloatArray:
        return as_numbers(found.values, found.type_name, what=f"tensor `{name}` of `{self.weights_path}`")

    def output_weights(self, rows: npt.NDArray[np.intp]) -> FloatArray | None:
        """Rows of the output layer that the matrices were learned beside, where PEFT has saved it with them; None for the model's.

        PEFT, too, takes these in place of the model's own. After `require_fitting` of that layer.
        """
        return self._copied("weight", rows)

    def output_bias(self) -> FloatArray | None:
        """As `output_weights`."""
        return self._copied("bias", slice(None))

    def _copied(self, kind: str, rows: npt.NDArray[np.intp] | slice) -> FloatArray | None:
        if kind not in self._copies:
            return None
        name, found = self._copies[kind]
        return self._numbers(name, Stored(found.values[rows], found.type_name))

    def of_model(self, arch: Architecture, sizes: Dimensions) -> LoraDelta:
        """The same, with the names that our models of that family give to layers, and rows in their order.

        What is of no layer of the family keeps its name. Raises BadFileError for rows that a layer cannot have.
        """
        made = copy.copy(self)
        made._pairs, made._scales = {}, {}
        read = [name for name in self._pairs if not peft_names.is_unread(arch, name)] or [*self._pairs]
        of_experts = {name: self._pairs[name] for name in read if expert_lora.is_of_experts(arch, name)}
        try:
            made._pairs |= expert_lora.of_layers(arch, sizes, of_experts, self._scaling.of_layer)
        except ValueError as exc:
            raise BadFileError(f"`{self.weights_path}` changes {exc}", hint=self._other_base) from exc
        made._scales |= dict.fromkeys(made._pairs, 1.0)
        for name in (name for name in read if name not in of_experts):
            ours = self._names.our_name(arch, name)
            layer = name if ours in made._pairs else ours
            if layer in made._pairs:
                raise BadFileError(f"`{self.weights_path}` changes `{layer}` twice, under two names", hint=self._other_base)
            (a_RI, b_OR), made._scales[layer] = self._pairs[name], self._scales[name]
            as_ours = self._names is peft_names and peft_names.is_ours(arch, name, layer)
            made._pairs[layer] = (a_RI, b_OR if as_ours else self._in_our_order(arch, sizes, layer, b_OR))
        made._unused = set(made._pairs)
        return made

    def _in_our_order(self, arch: Architecture, sizes: Dimensions, layer: str, b_OR: FloatArray) -> FloatArray:
        try:
            order = self._names.row_order(arch, sizes, layer, len(b_OR))
            return b_OR if order is None else np.ascontiguousarray(b_OR[order])
        except (ValueError, IndexError) as exc:
            message = f"`{self.weights_path}` changes `{layer}` as one of {len(b_OR):,} rows, which the model's cannot have"
            raise BadFileError(message, hint=self._other_base) from exc

    def matrices(self, layer: str) -> tuple[FloatArray, FloatArray] | None:
        """A and B of a layer, or None: for who multiplies them by `alpha / R`."""
        found = self._pairs.get(layer)
        if found is None:
            return None
        factor = self._scales[layer] * found[0].shape[-2] / self.alpha  # 1 but for a layer with a rank or a scale of its own
        return found if factor == 1 else (found[0], found[1] * np.float32(factor))

    def __call__(self, layer: str, rows: npt.NDArray[np.intp]) -> FloatArray | None:
        found = self._pairs.get(layer)
        if found is None:
            return None
        a, b = found
        if b.ndim == 3:
            return rows_by_expert(rows, b.shape[1], lambda expert, within: b[expert, within] @ a[expert])
        return np.asarray(b[rows] @ a * self._scales[layer], np.float32)

    @property
    def base(self) -> str:
        """What whoever made it calls the model that it was learned beside; "" where that is not said."""
        return self._scaling.base

    @property
    def ranks(self) -> dict[str, int]:
        """Of each layer."""
        return {layer: a_RI.shape[-2] for layer, (a_RI, _) in self._pairs.items()}

    @property
    def layers(self) -> KeysView[str]:
        """Those that are changed."""
        return self._pairs.keys()

    @functools.cached_property
    def sha256(self) -> str:
        """Of the weights' file, and of the layers' scales where they are not the usual one: what answers depend on."""
        weights, scales = paths.sha256_of(self.weights_path), set(self._told_scales.values())
        if len(scales) > 1:
            return paths.sha256_of_texts(weights, json.dumps(self._told_scales, sort_keys=True))
        return weights if scales == {USUAL_SCALE} else paths.sha256_of_texts(weights, *map(str, scales))

    def require_fitting(self, layer: str, sizes: tuple[int, ...]) -> None:
        """Raises BadFileError if what is added to this layer of the model is not of its sizes (rows, columns)."""
        self._unused.discard(layer)
        found = self._pairs.get(layer)
        if found is not None and (own := (math.prod(found[1].shape[:-1]), found[0].shape[-1])) != sizes:
            raise BadFileError(
                f"`{self.weights_path}` changes `{layer}` as one of {list(own)}, and the model's is {list(sizes)}",
                hint=self._other_base,
            )
        for kind, (name, copied) in self._copies.items() if layer == OUTPUT else ():
            if copied.values.shape != (sizes if kind == "weight" else sizes[:1]):
                raise BadFileError(
                    f"`{self.weights_path}` holds `{name}` of {list(copied.values.shape)}, and the model's is {list(sizes)}",
                    hint=self._other_base,
                )

    def scaled(self, layer: str) -> tuple[FloatArray, FloatArray] | None:
        """A_RI and scale * B_OR of a layer, or None."""
        found = self._pairs.get(layer)
        return None if found is None else (found[0], found[1] * np.float32(self._scales[layer]))

    def require_all_used(self, *, but: Collection[str] = ()) -> None:
        """Raises BadFileError if the model has no layer for some of these matrices: after `require_fitting` of all it has.

        `but`: layers that are not known to be there, or not to be.
        """
        if strange := self._unused.difference(but):
            raise BadFileError(
                f"`{self.weights_path}` changes layers this model does not have: {', '.join(sorted(strange)[:3])}",
                hint=self._other_base,
            )

    def require_other_than_output(self) -> None:
        """Raises UnsupportedError for one of the output layer: for a model that has its embedding in that place."""
        if OUTPUT in self._pairs:
            raise UnsupportedError(
                f"the adapter changes `{OUTPUT}`, and this model's is its embedding, too, which would change with it",
                hint=f"tune an adapter without `{OUTPUT}` among its target modules",
            )

    def require_standing_beside(self) -> None:
        """Raises UnsupportedError for one of a layer that one beside the weights cannot change.

        The output layer is computed for some of a pass's tokens only, and who reads which with what is told of all. A mixture's
        experts, and what makes their weights, are no products that another is added to.
        """
        alone = (layer for layer in self._pairs if layer == OUTPUT or layer.endswith((*ROUTERS, *EXPERTS)))
        if strange := next(alone, None):
            kind = "what makes the weights of experts" if strange.endswith(ROUTERS) else "experts"
            what = f"`{OUTPUT}`" if strange == OUTPUT else f"{kind} (`{strange}`)"
            raise UnsupportedError(
                f"`{self.weights_path}` changes {what}, which one beside the weights cannot here", hint="load it alone"
            )


class _Scaling:
    """By what the product of each layer's matrices is multiplied, as `adapter_config.json` says. Raises BadFileError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ADAPTER_CONFIG
        config = read_object(self._path, hint=AGAIN)
        _require_plain_lora(folder, config)
        for key in ("r", "lora_alpha"):
            if key not in config:
                raise _unsaid(self._path, key)
        rank, self._by_root = config["r"], bool(config.get("use_rslora"))
        if type(rank) is not int or not 1 <= rank <= LARGEST_RANK:
            raise self._wrong("r", rank, f"no rank: a whole number from 1 to {LARGEST_RANK:,}")
        self.rank = rank
        self.base = base if isinstance(base := config.get(ITS_BASE), str) else ""
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise self._wrong("alpha_pattern", patterns, "no object of names and numbers")
        self.has_patterns = bool(patterns)
        parameters = config.get("target_parameters") or []
        if not isinstance(parameters, list):
            raise self._wrong("target_parameters", parameters, "no list of names")
        self._parameters = [name for name in parameters if isinstance(name, str)]
        self._alpha = self._number("lora_alpha", config["lora_alpha"])
        self._written = 0.0  # letters that are repeated in all patterns
        self._alphas = {name: self._number(f"alpha_pattern.{name}", value) for name, value in patterns.items()}
        self._patterns = {name: self._compiled(name) for name in patterns}

    def of_layer(self, layer: str, rank: int) -> float:
        """The first pattern that matches counts, as PEFT has it."""
        parameter = f"{layer}.weight"  # what PEFT's patterns are compared with, where it changes that and not the layer
        told = parameter if any(f".{parameter}".endswith(f".{name}") for name in self._parameters) else layer
        alpha = next((value for name, value in self._alphas.items() if self._matches(name, told)), self._alpha)
        return float(alpha / (rank**0.5 if self._by_root else rank))

    def _number(self, key: str, value: Any) -> float:
        """Of the config; one that weights stay numbers with."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_WEIGHT:
            raise self._wrong(key, value, "no number that weights can be multiplied by")
        return float(value)

    def _compiled(self, name: str) -> regex.Pattern[str]:
        import regex  # unlike `re` it can be told to give up; but it writes out what is to be repeated

        if any(letter.isspace() for letter in name):  # between any two letters of a count, if the expression begins so
            raise self._wrong("alpha_pattern", name, "no regular expression of layers, whose names have no spaces")
        repeats = _most_repeats(name)
        self._written += len(name) * repeats
        if max(len(name), self._written) > MOST_WRITTEN:
            raise self._wrong("alpha_pattern", name, TAKES_LONG)
        try:
            return regex.compile(rf"(.*\.)?({name})$")
        except (regex.error, RecursionError) as exc:
            raise self._wrong("alpha_pattern", name, "no regular expression") from exc

    def _matches(self, name: str, layer: str) -> bool:
        try:
            return self._patterns[name].match(layer, timeout=LONGEST_MATCH) is not None
        except TimeoutError as exc:
            raise self._wrong("alpha_pattern", name, TAKES_LONG) from exc

    def _wrong(self, key: str, value: Any, why: str) -> BadFileError:
        return BadFileError(f"`{self._path}` says {json.dumps(value)[:80]} as `{key}`, which is {why}", hint=AGAIN)


def _most_repeats(expression: str) -> float:
    """How many times `regex` may write a letter of it out again: counts that can stand within each other multiply, others add up."""
    alone, nested = 0.0, 1.0
    for count in REPEATED.finditer(expression):
        times = max(1.0, float(count["times"]))
        if count["alone"] is None:
            nested *= times
        else:
            alone += times
    return max(1.0, alone) * nested - 1


def _read_stored(folder: Path) -> dict[str, Stored]:
    """The tensors of an adapter's folder. Raises BadFileError."""
    path = folder / ADAPTER_WEIGHTS
    if not path.exists():
        raise _without_weights(folder)
    try:
        found = dict(read_tensors(path, hint=AGAIN))
    except OSError as exc:
        raise cannot_read(path, exc, if_absent=AGAIN) from exc
    own = {name: match[2] for name in found if (match := WITH_ITS_NAME.search(name))}
    names = sorted({own.get(name, "one without a name") for name in found if name.endswith((A, B)) or name in own})
    stored = {WITH_ITS_NAME.sub(r"\1", name): tensor for name, tensor in found.items()}
    if len(names) > 1:
        raise BadFileError(
            f"`{path}` holds several adapters: {first_few(names, NAMED)}",
            hint="save each into a folder of its own, with PEFT's `save_pretrained`",
        )
    return stored


def _require_partners(path: Path, stored: Collection[str]) -> None:
    """Raise BadFileError for a matrix without the one it is multiplied by."""
    partners = {name: name.removesuffix(A) + B for name in stored if name.endswith(A)}
    partners |= {name: name.removesuffix(B) + A for name in stored if name.endswith(B)}
    if missing := sorted({*partners.values()}.difference(stored)):
        lacks = f"{counted(len(missing), 'tensor')} of {len(missing) + len(partners):,}: {first_few(missing, NAMED)}"
        raise BadFileError(f"`{path}` lacks {lacks}; its answers would be wrong", hint=AGAIN)


def _without_weights(folder: Path) -> BadFileError:
    """For an adapter that does not have its weights in one file of safetensors."""
    path, old = folder / ADAPTER_WEIGHTS, folder / ADAPTER_PICKLE
    if old.exists():
        content = f"torch.load({str(old)!r}, map_location='cpu', weights_only=True)"
        code = f"import torch; from safetensors.torch import save_file; save_file({content}, {str(path)!r})"
        return BadFileError(f"`{folder}` holds no `{path.name}`, only `{old.name}`", hint=f"write it anew, in Python: `{code}`")
    if (folder / ADAPTER_INDEX).exists():
        content = (
            f"{{name: tensor for part in Path({str(folder)!r}).glob('{path.stem}-*') for name, tensor in load_file(part).items()}}"
        )
        code = f"from pathlib import Path; from safetensors.torch import load_file, save_file; save_file({content}, {str(path)!r})"
        return BadFileError(f"`{folder}` holds its weights in several files", hint=f"write them into one, in Python: `{code}`")
    return BadFileError(f"`{folder}` is not a whole adapter folder: it holds no `{path.name}`", hint=AGAIN)


def _unsaid(path: Path, key: str) -> BadFileError:
    return BadFileError(f"`{path}` does not say its `{key}`", hint=AGAIN)


def _how_to_merge(config: dict[str, Any]) -> str:
    """The hint to merge with PEFT, with the condition under which its merge does what the adapter does."""
    if config.get("lora_bias"):
        return MERGE_WITH_BIASES
    return MERGE_UNLESS_TIED if EMBEDDING_OR_OUTPUT.search(str(config.get("target_modules"))) else MERGE


def _require_plain_lora(folder: Path, config: dict[str, Any]) -> None:
    """Raise BadFileError for an adapter whose matrices alone, added to its base, do not give what was tuned."""
    kind, start = config.get("peft_type"), str(config.get("init_lora_weights"))
    if kind is None:
        raise _unsaid(folder / ADAPTER_CONFIG, "peft_type")
    if kind != "LORA":
        hint = NO_MERGE if kind in CANNOT_MERGE else _how_to_merge(config)
        raise BadFileError(f"`{folder}` is a `{kind}` adapter, and nomoat adds LoRA alone", hint=hint)
    if more := next((name for name in MORE_THAN_MATRICES if config.get(name)), None):
        hint = _how_to_merge(config) if MORE_THAN_MATRICES[more] else NO_MERGE
        raise BadFileError(f"`{folder}` is a LoRA with `{more}`, which nomoat cannot add to weights", hint=hint)
    if config.get("alora_invocation_tokens"):
        raise BadFileError(
            f"`{folder}` is an activated LoRA, which changes only what stands behind its own words; nomoat would change all",
            hint="ask PEFT or vLLM for its answers, and nomoat with `http://HOST:PORT/v1#NAME`",
        )
    if start.lower().startswith(CHANGES_ITS_BASE):
        saved = "" if start.lower() == "loftq" else "save it again with PEFT's `path_initial_model_for_weight_conversion`, or "
        raise BadFileError(
            f"`{folder}` rests on weights that its start (`{start}`) changed: beside the model's own it would answer wrongly",
            hint=f"{saved}merge it with PEFT (`merge_and_unload`) into the weights it was tuned on, and run that folder",
        )
