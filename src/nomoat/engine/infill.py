"""The middle of a text, between what stands before a gap and what stands behind it: with which tokens a model learned that.

Of a model whose vocabulary has them, which need not have learned it: the Qwen2.5 of conversations has Qwen2.5-Coder's.

Not covered: other files of a repository beside the text, for which models of code have tokens, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Before what stands before the gap, before what stands behind it, and before the middle. Source: llama-vocab.cpp, but for the last
# two. Without GLM's, which it has: CodeGeeX4 learned the suffix first, and of the others it is not known here.
NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek-Coder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    ("<PRE>", "<SUF>", "<MID>"),
    ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),  # Seed-Coder
    ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),  # Codestral
)
SUFFIX_FIRST = ("<[fim-prefix]>", "[PREFIX]")
WITHOUT_MIDDLE = ("[PREFIX]",)  # the middle follows what stands before it
# Behind a middle: Code Llama's end of one, and what CodeGemma and StarCoder2 begin another file with.
ENDS = ("▁<EOT>", "<EOT>", "<|file_separator|>", "<file_sep>", "<repo_name>")
A_LETTER = "☺"  # as Code Llama and mistral-common have it: no word goes on from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Tokens by their ids. `middle`: None where it follows what stands before it without one. `ends`: those that end a middle, beside
    the ends of any answer; the marks are among them."""

    prefix: int
    suffix: int
    middle: int | None
    suffix_first: bool
    ends: tuple[int, ...]

    def around(self, before: Sequence[int], behind: Sequence[int]) -> list[int]:
        """The tokens of both sides, in the order and with the marks that the model learned."""
        sides = [[self.prefix, *before], [self.suffix, *behind]]
        first, second = reversed(sides) if self.suffix_first else sides
        return [*first, *second, *(() if self.middle is None else (self.middle,))]


def find(backend: Any, said: Sequence[int] = ()) -> Marks | None:
    """Those of a vocabulary; None where it has none. `said`: the three that a file names, which go before those known by name."""
    names = [tuple(map(backend.id_to_token, said))] if said else []
    for name, *others in (*names, *NAMES):
        prefix, suffix, middle = (backend.token_to_id(one) for one in (name, *others))
        if None not in (prefix, suffix, middle):
            ends = {prefix, suffix, middle, *(end for one in ENDS if (end := backend.token_to_id(one)) is not None)}
            return Marks(
                prefix=prefix, suffix=suffix, middle=None if name in WITHOUT_MIDDLE else middle,
                suffix_first=name in SUFFIX_FIRST, ends=tuple(sorted(ends)),
            )  # fmt: skip
    return None


def as_written(backend: Any, marks: Sequence[int]) -> Any:
    """A tokenizer with the same vocabulary for which no special token, and none of these marks, stands in a text.

    Code that has their names in it is cut as any other. Other added tokens, such as those of several spaces, are found as ever.
    """
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    plain = Backend(backend.model)  # the two share it
    plain.normalizer, plain.pre_tokenizer, plain.decoder = backend.normalizer, backend.pre_tokenizer, backend.decoder
    added = sorted(backend.get_added_tokens_decoder().items())
    plain.add_tokens([
        AddedToken(
            one.content, special=one.special or at in marks, normalized=one.normalized, lstrip=one.lstrip, rstrip=one.rstrip,
            single_word=one.single_word,
        )
        for at, one in added
    ])  # fmt: skip
    plain.encode_special_tokens = True
    return plain
