"""How much memory a model takes here, told before it is downloaded.

On CPUs with AVX2 or ARM's dotprod files of the usual families keep their own codes (8 bits at most) at the default quality, and
files of at most 4 bits do with `--quality small` and from 700 million parameters up at every quality. What does not is imported into
int8 with one scale a row: 1.05 bytes a parameter; with `--quality small` into 4 bits in part.
The KV cache has 16 bits, or 8 where that is near enough for nomoat's own passes.
Choosing among answers computes in float32 where memory allows, with weights of its own beside those: `scoring_bytes`. Where it does
not, the served form is opened once more, which the engine packs once more; a file's own codes are read where they lie, and
take nothing. Both have keys and values of their own: `scoring_token_bytes`.
What this does not cover: pages of files that are in memory and that the system can drop again without harm. The engine packs
the weights into memory of its own, so `top` may show them twice (docs/models.md has the numbers). What questions take where
likelihoods are of the served form was not measured.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Literal

from nomoat import config, footprint, hardware, words
from nomoat.errors import NotEnoughMemoryError
from nomoat.hardware import Detected
from nomoat.records import ModelCard

INT8_BYTES_PER_PARAMETER = 1.05  # a scale a row, norms in 16 bits
TILES_BYTES_PER_PARAMETER = 0.64  # Q4_K_M: 4.6 bits, 6.6 of the matrices that have 6; where the file's size is not known
TILES8_BYTES_PER_PARAMETER = 34 / 32  # Q8_0: the most that a file's own codes take, and what those of other types become
SMALL_BYTES_PER_PARAMETER = 0.8  # 4 bits, int8 in tables and two matrices a layer: a 7B has 0.69, Qwen's 0.5B 0.77
FOUR_BIT_FILE = re.compile(r"q[23]_k|q4_", re.IGNORECASE)  # IQ4_XS, too
OVERHEAD_BYTES = 400_000_000  # Python, OpenVINO, compiled kernels, activations
STARTED_BYTES = 100_000_000  # the most of these that Python and imports are, which whoever asks for room has: 75 MB were measured
LEAST_CONTEXT = 512  # tokens that are worth naming
SCORING_COPIES = 6  # of a question's keys and values, in float32 5.5 and 5.8: OpenVINO's cache as it grows, and what is kept of them
FREE_SHARE = 0.9  # of what is free now: above it the model fits only if other programs give way
TOTAL_SHARE = 0.95  # of all memory: above it the machine swaps

SMALLER = "choose a smaller model (`nomoat models --fits`)"

Fits = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """What memory depends on. A shape that is None is estimated from the number of parameters, and so are the weights' bytes."""

    parameters: int
    four_bits: bool = False  # whether the file's codes have at most 4 bits
    file_bytes: int | None = None
    weights_bytes: int | None = None  # as they are served
    keeps_codes: bool | None = None  # whether the file's own codes are served; None is foretold
    layers: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    architecture: str | None = None
    experts: int = 0  # of a mixture
    context_tokens: int | None = None  # the longest texts that the model was made for, where it says so
    is_converted: bool = False  # by optimum-intel: likelihoods are of the served form, on every machine


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Estimated memory of a running model. `note` says what stands on a guess.

    `scoring_bytes`: what comes to that while answers are chosen by their likelihoods, and `scoring_token_bytes` for each token of the
    longest question. `most_cache_bytes`: what the KV cache may grow to with longer texts, with many at once and with what is kept of
    them, in place of `kv_cache_bytes`; half of what is free when the first comes is its bound.
    """

    weights_bytes: int
    scoring_bytes: int
    scoring_token_bytes: int
    kv_cache_bytes: int
    most_cache_bytes: int
    overhead_bytes: int
    context_tokens: int
    note: str

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes

    def scoring(self, question_tokens: int) -> int:
        """What comes to that while answers are chosen by their likelihoods, to questions of at most so many tokens."""
        return self.scoring_bytes + question_tokens * self.scoring_token_bytes

    def cache_within(self, total_bytes: int) -> int:
        """What is left for the KV cache of so many bytes in all, at least what is planned for, at most what it can use."""
        left = total_bytes - (self.total_bytes - self.kv_cache_bytes)
        return max(self.kv_cache_bytes, min(left, self.most_cache_bytes))

    def at(self, context_tokens: int) -> int:
        """All of it at a shorter context."""
        return self.total_bytes - self.kv_cache_bytes + self.kv_cache_bytes * context_tokens // self.context_tokens

    def context_within(self, total_bytes: int) -> int | None:
        """The longest of half the planned context, a quarter and so on at which it takes no more than that; None where none does."""
        tokens = self.context_tokens
        while (tokens := tokens // 2) >= LEAST_CONTEXT:
            if self.at(tokens) <= total_bytes:
                return tokens
        return None

    def __str__(self) -> str:
        weights, cache, rest = (count / 1e9 for count in (self.weights_bytes, self.kv_cache_bytes, self.overhead_bytes))
        return (
            f"about {self.total_bytes / 1e9:.1f} GB: weights {weights:.2f} + KV cache {cache:.2f} "
            f"({self.context_tokens:,} tokens) + overhead {rest:.2f} ({self.note})"
        )


def _sizes_of(card: ModelCard) -> ModelSizes | None:
    """What a card says about its sizes; None for a closed model."""
    if card.parameters is None:
        return None
    four_bits = bool(card.sources) and all(FOUR_BIT_FILE.search(source.file_name) for source in card.sources)
    sizes = [source.size_bytes for source in card.sources if source.size_bytes]
    return ModelSizes(
        parameters=card.parameters, four_bits=four_bits, file_bytes=max(sizes, default=None), layers=card.layers,
        kv_heads=card.kv_heads, head_dim=card.head_dim, architecture=card.architecture, context_tokens=card.context_tokens,
    )  # fmt: skip


def memory_need(card: ModelCard, context_tokens: int | None = None) -> MemoryNeed | None:
    """See `need_at`; None for a closed model."""
    sizes = _sizes_of(card)
    return None if sizes is None else need_at(sizes, context_tokens)


def need_at(sizes: ModelSizes, context_tokens: int | None = None) -> MemoryNeed:
    """Weights, KV cache and overhead at the context asked for, else at NOMOAT_CONTEXT_TOKENS, else at 4,096 tokens; never at more than
    the model has."""
    asked = context_tokens or config.context_tokens()
    planned = min(asked or footprint.USUAL_TOKENS, sizes.context_tokens or sys.maxsize)
    longest = planned if asked else sizes.context_tokens or planned
    weights, note = _weights(sizes)
    if sizes.layers is not None and sizes.kv_heads is not None and sizes.head_dim is not None:
        quality = config.quality().value
        of_16_bits = footprint.kv_bytes_a_token(sizes.layers, sizes.kv_heads, sizes.head_dim)
        kv_sizes = footprint.foretold_kv_sizes(sizes.architecture, sizes.head_dim, keeps_codes=_keeps_codes(sizes), quality=quality)
        token_bytes = footprint.kv_bytes_a_token(sizes.layers, sizes.kv_heads, sizes.head_dim, kv_sizes)
    else:
        # LLaMA 7B has 2 * 32 * 32 * 128 values a token; layers times width grow as parameters to the power of two thirds
        token_bytes = of_16_bits = footprint.KV_BYTES_PER_VALUE * round(262_144 * (sizes.parameters / 6.74e9) ** (2 / 3))
        note += ", KV cache guessed from the number of parameters"
    exact = None if sizes.is_converted else footprint.exact_bytes(sizes.parameters, sizes.experts)
    served_again = 0 if _keeps_codes(sizes) else weights
    return MemoryNeed(
        weights_bytes=weights,
        scoring_bytes=served_again if exact is None else exact,
        scoring_token_bytes=SCORING_COPIES * of_16_bits * (1 if exact is None else 2),
        kv_cache_bytes=token_bytes * planned,
        most_cache_bytes=max(token_bytes * longest, footprint.CACHE_BYTES),
        overhead_bytes=OVERHEAD_BYTES,
        context_tokens=planned,
        note=note,
    )


def _weights(sizes: ModelSizes) -> tuple[int, str]:
    """Bytes of the weights as they are served, and where the number comes from."""
    if sizes.weights_bytes is not None:
        return sizes.weights_bytes, "weights as they are stored here"
    if _keeps_codes(sizes):
        most, note = round(TILES8_BYTES_PER_PARAMETER * sizes.parameters), "estimate: the file's own codes in memory"
        if sizes.file_bytes is not None:
            return min(sizes.file_bytes, most), note
        return (round(TILES_BYTES_PER_PARAMETER * sizes.parameters), note) if sizes.four_bits else (most, f"{note}, at most 8 bits")
    if config.quality().value == "small":
        return round(SMALL_BYTES_PER_PARAMETER * sizes.parameters), "estimate: 4 bits in memory, and int8 where they would lose much"
    return round(INT8_BYTES_PER_PARAMETER * sizes.parameters), "estimate: int8 in memory, whatever the file"


def _keeps_codes(sizes: ModelSizes) -> bool:
    """Whether nomoat's own products multiply by the file's codes, as far as a card tells; see the engine's `layout.storage`."""
    if sizes.keeps_codes is not None:
        return sizes.keeps_codes
    quality = config.quality().value
    if sizes.four_bits and footprint.in_tiles(sizes.parameters, quality):
        return True
    is_usual = sizes.architecture in footprint.NATIVE_FAMILIES and sizes.parameters >= footprint.FEW_WEIGHTS
    return is_usual and quality == "default" and footprint.has_native_kernels()


def fit(need: MemoryNeed) -> Detected[Fits]:
    """Whether a need fits into this machine, and why."""
    free, total = hardware.memory_available_bytes(), hardware.memory_total_bytes()
    if need.total_bytes <= FREE_SHARE * free.value:
        return Detected("fits", f"{free.value / 1e9:.1f} GB are free ({free.reason})")
    if need.total_bytes <= TOTAL_SHARE * total.value:
        return Detected("tight", f"{free.value / 1e9:.1f} of {total.value / 1e9:.1f} GB are free: {hardware.more_memory(free)}")
    return Detected("does not fit", f"there are {total.value / 1e9:.1f} GB ({total.reason})")


def room() -> Detected[int]:
    """What a model may take that this process loads: what is free, and what the process has already of the overhead."""
    free = hardware.memory_available_bytes()
    return Detected(free.value + min(hardware.memory_of_this_process_bytes(), STARTED_BYTES), free.reason)


def require_room(ref: str, need: MemoryNeed, *, scoring_bytes: int = 0) -> None:
    """Raise NotEnoughMemoryError, saying what would help, if a need is more than there is room for. `scoring_bytes`: see `scoring`."""
    there, total = room(), need.total_bytes + scoring_bytes
    if total <= there.value:
        return
    needed, has = words.two_gigabytes(total, there.value)
    tokens = need.context_within(there.value - scoring_bytes)
    instead = f"NOMOAT_CONTEXT_TOKENS={tokens}, or `-c {tokens}` where you gave one, in Python: `context_tokens`"
    shorter = f" or a shorter context ({instead})" if tokens else ""
    scored = f", {scoring_bytes / 1e9:.2f} GB of it to choose among answers by their likelihood" if scoring_bytes else ""
    raise NotEnoughMemoryError(
        f"`{ref}` needs about {needed} GB of memory at a context of {need.context_tokens:,} tokens{scored}, and there are {has} GB "
        f"for it ({there.reason})",
        hint=f"{SMALLER}{shorter}, or {hardware.more_memory(there, total - there.value)}",
    )


def require_budget(ref: str, need: MemoryNeed, budget_bytes: int) -> None:
    """The same of what a server may use, which may be less than there is."""
    if need.total_bytes <= budget_bytes:
        return
    there = room()
    needed, budget = words.two_gigabytes(need.total_bytes, budget_bytes)
    more, shorter = "give more with `--memory {}`", "shorten the context with `-c {}`"
    of_both = "(in Python: `memory_bytes`, `context_tokens`)"
    fewer = need.context_within(budget_bytes)
    if need.total_bytes <= there.value:
        more = more.format(words.gigabytes_up(need.total_bytes))
        hint = f"{more}, or {shorter.format(fewer)} {of_both}" if fewer else f"{more} (in Python: `memory_bytes`)"
    elif fewer:
        hint = f"{shorter.format(fewer)} (in Python: `context_tokens`)"
    elif fewer := need.context_within(there.value):
        hint = f"{more.format(words.gigabytes_up(need.at(fewer)))}, and {shorter.format(fewer)} {of_both}"
    else:
        more = more.format(words.gigabytes_up(need.total_bytes))  # a share of what there is may be too little once more
        hint = f"{SMALLER}, or {hardware.more_memory(there, need.total_bytes - there.value)} and {more} (in Python: `memory_bytes`)"
    raise NotEnoughMemoryError(f"`{ref}` needs about {needed} GB, and the budget is {budget} GB", hint=hint)


def require_fit(name: str, need: MemoryNeed) -> None:
    """Raise NotEnoughMemoryError, naming a smaller model, if a need is more than this machine has."""
    verdict = fit(need)
    if verdict.value != "does not fit":
        return
    smaller = _largest_that_fits(need.context_tokens)
    try_it = f"try `{smaller}`, or `nomoat pull {name} --force` if you know better"
    total, share = hardware.memory_total_bytes(), f"{100 * TOTAL_SHARE:.0f} % of all"
    needed, there = words.two_gigabytes(need.total_bytes, int(TOTAL_SHARE * total.value))
    raise NotEnoughMemoryError(
        f"`{name}` needs about {needed} GB of memory, and there are {there} GB for it, {share} ({total.reason})",
        hint=try_it if smaller else "use a smaller model or a shorter context",
    )


def _largest_that_fits(context_tokens: int) -> str | None:
    """The id of the largest model that can be pulled, fits, and may be used commercially, if under conditions."""
    from nomoat.catalog.cards import cards
    from nomoat.catalog.licences import REFUSALS, chain

    usable = (card for card in cards() if card.sources and chain(card).commercial not in REFUSALS)
    fitting = (card for card in usable if (need := memory_need(card, context_tokens)) and fit(need).value == "fits")
    largest = max(fitting, key=lambda card: card.parameters or 0, default=None)
    return largest.id if largest else None
