"""How a training computes: precision, and what of the model is kept in memory; by what a machine is fast at and has free."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nomoat import hardware, words
from nomoat.engine import layout, tied_embeddings, tiles
from nomoat.engine.gguf import Tensor
from nomoat.errors import NotEnoughMemoryError
from nomoat.tune import network, prepare, qlora
from nomoat.tune.samples import MOST_LOOKED_AT, Sample, batches_of, computed_tokens, shared_prefix, width_of

PYTORCH_BYTES = 600_000_000
ADAPTER_BYTES_A_WEIGHT = 24  # itself, its gradient, two means of SOAP, its average, and that of the best look, in f32
KEPT_PART = 3  # what the frozen layers say about all lessons is kept if it takes at most this part of the free memory, and fits


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPlan:
    """What the last bits of a result depend on beside the settings; decided once, and kept in the checkpoint.

    `precision`: of the matrix products. `expanded`: the weights are kept so, not as small as can be. `keeps_lower`: what the frozen
    layers say about each lesson is computed once.
    """

    precision: qlora.Precision
    expanded: bool
    keeps_lower: bool


def choose_plan(
    prepared: prepare.Prepared, say: Callable[[str], None], *, precision: hardware.Detected[qlora.Precision] | None = None,
    sharing: int = 1,
) -> ExecutionPlan:  # fmt: skip
    """By what this machine is fast at, and has memory for now. Says what, and why. Raises NotEnoughMemoryError.

    `precision`, where that is decided already. `sharing`: so many processes want the same memory.
    """
    precision = precision or qlora.fastest_precision()
    say(f"precision: {precision.value} ({precision.reason})")
    expanded = keep_expanded(prepared, precision.value, sharing)
    say(f"weights: {'kept expanded' if expanded.value else 'kept small, activations computed twice'} ({expanded.reason})")
    size = bytes_kept(prepared, precision.value, expanded=expanded.value, sharing=sharing)
    if size:
        frozen = prepared.sizes.layers - prepared.settings.layers
        say(f"the lowest {frozen} layers stay as they are: what they say is computed once and kept ({size / 1e9:.1f} GB)")
    return ExecutionPlan(precision=precision.value, expanded=expanded.value, keeps_lower=size > 0)


def keep_expanded(prepared: prepare.Prepared, precision: qlora.Precision, sharing: int = 1) -> hardware.Detected[bool]:
    """Whether the weights fit into memory expanded, or have to stay small, of which the rest is made layer by layer.

    Raises NotEnoughMemoryError if neither fits.
    """
    available = hardware.memory_available_bytes()
    free = available.value // sharing
    expanded, codes = (_bytes_needed(prepared, precision, expanded=kept) for kept in (True, False))
    needed, there = words.two_gigabytes(expanded, free)
    if expanded < free:
        return hardware.Detected(True, f"about {needed} GB of memory, and {there} GB are free")
    if codes < free:
        why = f"expanded they need about {needed} GB, small {codes / 1e9:.1f} GB, and {there} GB are free"
        return hardware.Detected(False, why)
    needed, there = words.two_gigabytes(codes, free)
    among = f", for each of {sharing} processes" if sharing > 1 else ""
    raise NotEnoughMemoryError(
        f"tuning `{prepared.weights.name}` needs about {needed} GB of memory, and {there} GB are free{among} ({available.reason})",
        hint="tune a smaller model (`nomoat models --fits`), take a lower --rank or --batch (in Python: `rank`, `batch`), "
        f"or {hardware.more_memory(available, sharing * (codes - free))}",
    )


def require_memory(prepared: prepare.Prepared, plan: ExecutionPlan, *, doing: str = "going on as it began") -> None:
    """Raises NotEnoughMemoryError if what is free is not enough for the plan a training began with."""
    free, need = hardware.memory_available_bytes(), _bytes_needed(prepared, plan.precision, expanded=plan.expanded)
    need += _bytes_of_lower(prepared) if plan.keeps_lower else 0
    if need > free.value:
        needed, there = words.two_gigabytes(need, free.value)
        raise NotEnoughMemoryError(
            f"{doing} needs about {needed} GB of memory, and {there} GB are free ({free.reason})",
            hint=f"{hardware.more_memory(free, need - free.value)}, or start again without --resume (in Python: `resume`)",
        )


def num_learned(prepared: prepare.Prepared) -> int:
    """How many weights the adapter has."""
    shapes = [prepared.file.tensor(f"blk.0.{name}.weight").shape for name in prepared.arch.projections.values()]
    return prepared.settings.rank * prepared.settings.layers * sum(rows + columns for rows, columns in shapes)


def _bytes_needed(prepared: prepare.Prepared, precision: qlora.Precision, *, expanded: bool) -> int:
    settings, learned = prepared.settings, ADAPTER_BYTES_A_WEIGHT * num_learned(prepared)
    prefix = shared_prefix(prepared.all_samples)
    _, held_out = prepared.split
    batches = [(True, batch) for batch in batches_of(prepared.samples, prefix, max_lessons=settings.batch)]
    batches += [(False, batch) for batch in batches_of(held_out, prefix, max_lessons=MOST_LOOKED_AT)]
    step = max(_bytes_of_step(prepared, batch, prefix, precision, expanded=expanded, learns=learns) for learns, batch in batches)
    return PYTORCH_BYTES + _bytes_of_weights(prepared, precision, expanded=expanded) + learned + step


def _bytes_of_weights(prepared: prepare.Prepared, precision: qlora.Precision, *, expanded: bool) -> int:
    """Of all matrices; in 8 bits also of the transposes of those that gradients go through, where they are kept."""
    file, own, in_bytes, head_in_floats = prepared.file, _own_codes(prepared), prepared.file.num_values, 0
    if expanded and precision != "int8":
        return in_bytes * qlora.DTYPES[precision].itemsize
    if expanded:
        head = file.tensor(tied_embeddings.output_tensor(file))
        layer = sum(file.tensor(f"blk.0.{name}.weight").num_values for name in prepared.arch.projections.values())
        fits = qlora.fits_tiles(head.num_rows, head.shape[-1])  # as layers do, but vocabularies are of any size
        in_bytes += prepared.settings.layers * layer + head.num_values * (1 if fits else -1)
        head_in_floats = 0 if fits else head.num_values
    in_bytes -= sum(tensor.num_values for tensor in own)
    codes = sum(tiles.size(tensor.type_name, tensor.num_rows, tensor.shape[-1]) for tensor in own)
    return codes + int(in_bytes * qlora.TILED_BYTES) + 4 * head_in_floats


def _own_codes(prepared: prepare.Prepared) -> list[Tensor]:
    """The matrices that are served in the file's own codes, and can be learned beside in these."""
    stored = layout.storage(prepared.file, prepared.sizes, "default")
    return [
        tensor
        for tensor in prepared.file.tensors.values()
        if tensor.is_matrix and stored.form_of(tensor).kind == "tiles" and qlora.fits_tiles(tensor.num_rows, tensor.shape[-1])
    ]


def types_in_tiles(prepared: prepare.Prepared, precision: qlora.Precision) -> list[str]:
    """Of all tiles that a training in this precision reads weights from."""
    return sorted({*(tensor.type_name for tensor in _own_codes(prepared)), *([qlora.TILED] if precision == "int8" else [])})


def _bytes_of_step(
    prepared: prepare.Prepared, batch: Sequence[Sample], prefix: int, precision: qlora.Precision, *, expanded: bool, learns: bool
) -> int:
    """What a batch has in memory at most: masks, each layer's state until the backward pass, and the loss. As codes, one of the last
    two; and so of a batch that is only looked at, with one layer's state.
    """
    sizes, tokens, layers = prepared.sizes, computed_tokens(batch, prefix), prepared.settings.layers
    each = 4 * (12 * sizes.width + 4 * sizes.hidden)  # bytes a token and layer that wait for the backward pass
    if sizes.attention_cap is not None:  # scores before and after softmax, of all a token sees
        each += 2 * 4 * sizes.heads * max(map(len, batch))
    state = tokens * each + _bytes_of_copies(prepared, batch, prefix, precision)
    loss = _bytes_of_loss(prepared, batch, precision, expanded=expanded)
    masks = qlora.DTYPES[precision].itemsize * network.num_masked(prepared.arch, sizes, prefix, width_of(batch, prefix))
    if not learns:
        return masks + max(state, loss)
    if expanded:
        return masks + layers * state + loss
    return masks + tokens * layers * 4 * sizes.width + max(3 * state, loss)


def _bytes_of_copies(prepared: prepare.Prepared, batch: Sequence[Sample], prefix: int, precision: qlora.Precision) -> int:
    """Of a layer: each row's own keys and values of the shared beginning, and its scores; or the former for each head."""
    sizes, length, capped = prepared.sizes, width_of(batch, prefix), prepared.sizes.attention_cap is not None
    if not prefix:
        return 0
    if network.holds_scores(length, prefix + length, capped=capped):
        a_token = 2 * sizes.kv_heads * sizes.head_dim + (0 if capped else sizes.heads * length)
    else:
        a_token = 2 * sizes.heads * sizes.head_dim
    return len(batch) * prefix * a_token * qlora.DTYPES[precision].itemsize


def _bytes_of_loss(prepared: prepare.Prepared, batch: Sequence[Sample], precision: qlora.Precision, *, expanded: bool) -> int:
    """Logits, which become their slopes, of the answer tokens taken at a time; beside them, if it is not kept so, the whole matrix as
    it multiplies (in 8 bits its transpose)."""
    sizes, head = prepared.sizes, prepared.file.tensor(tied_embeddings.output_tensor(prepared.file))
    size = qlora.DTYPES[precision].itemsize
    tokens = min(qlora.AnswerLoss.CHUNK_TOKENS, sum(sample.num_learned for sample in batch))
    logits = tokens * head.num_rows * (size if sizes.logit_cap is None else 3 * 4)
    return logits + (0 if expanded else int(head.num_values * qlora.bytes_a_weight(head.num_rows, head.shape[-1], precision)))


def bytes_kept(prepared: prepare.Prepared, precision: qlora.Precision, *, expanded: bool, sharing: int = 1) -> int:
    """Memory for what the frozen layers say about all lessons, after their shared beginning. 0: each step computes that anew.

    It does without frozen layers, in a single epoch, and for want of memory.
    """
    if prepared.settings.layers == prepared.sizes.layers or prepared.settings.epochs <= 1:
        return 0
    free = hardware.memory_available_bytes().value // sharing
    room = min(free // KEPT_PART, free - _bytes_needed(prepared, precision, expanded=expanded))
    size = _bytes_of_lower(prepared)
    return size if size <= room else 0


def _bytes_of_lower(prepared: prepare.Prepared) -> int:
    """Of what the frozen layers say about all lessons, after their shared beginning."""
    samples = prepared.all_samples
    prefix = shared_prefix(samples)
    return 4 * prepared.sizes.width * sum(len(sample) - prefix for sample in samples)
