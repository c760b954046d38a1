"""The prompts of many lessons in tokens: what they begin with alike, as the question of a table with all its labels, is cut once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers.models import BPE

from nomoat import matching
from nomoat.engine.tokenizer import LONG_TEXT, Tokenizer

OVERLAP = 8  # tokens that the end of a prompt, cut by itself, has to begin with
BEHIND = 2  # of the shared ones that stand behind these: what follows may be in one token with the last
TRIED = 8  # places to begin at; before some a text by itself is other tokens, as behind a line break that its words take along
SHORTEST = 500  # letters; cutting fewer takes no time that is worth it


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """`text`, which begins with the tokens `ids`; at letter `at` the next ones begin, `overlap`, and end where it does."""

    text: str
    at: int
    ids: list[int]
    overlap: list[int]

    def followed_by(self, ids: list[int]) -> list[int] | None:
        """The whole prompt's tokens, of those of its end from `at` on; None where these begin otherwise."""
        return [*self.ids, *ids] if ids[: len(self.overlap)] == self.overlap else None


class AlikePrompts:
    """Cuts prompts as `Tokenizer.encode` does, each to the same tokens.

    Of a prompt that begins as those before it only the end is cut, from `OVERLAP` tokens before the end of that beginning on. Where
    these come out as they are in a whole prompt, no token reaches over their ends in this one either, and what stands before them is
    merged by itself: the same. Else the prompt is cut whole; so is every one where tokens are not merged: in a Unigram tokenizer the
    likeliest cut of a whole text decides, and between two as likely how the scores of all that stands before are rounded.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._merges = isinstance(tokenizer.backend.model, BPE)
        self._example: str | None = None  # the first prompt
        self._shared = ""  # what all so far begin with
        self._beginning: Beginning | None = None

    def cut(self, prompts: Sequence[str]) -> list[list[int]]:
        """The token ids of each prompt, behind the one that begins a text where the template leaves it to us; several at once."""
        begun = [self._beginning_of(prompt) for prompt in prompts]
        ends = self._tokenizer.encode_many([prompt[one.at :] for prompt, one in zip(prompts, begun, strict=True) if one])
        found = [None if one is None else one.followed_by(next(ends)) for one in begun]
        wholes = self._wholes([prompt for prompt, ids in zip(prompts, found, strict=True) if ids is None])
        return [next(wholes) if ids is None else ids for ids in found]

    def _beginning_of(self, prompt: str) -> Beginning | None:
        """The one that is known by now, if it is this prompt's; what is shared is learned from the others."""
        found = self._beginning
        if found is not None and prompt.startswith(found.text):
            return found
        if self._example is None:
            self._example = self._shared = prompt
        elif len(self._shared) >= SHORTEST and not prompt.startswith(self._shared):
            self._shared = prompt[: matching.num_common(self._shared, prompt)]
            can_be_used = self._merges and len(self._shared) >= SHORTEST and len(self._example) < LONG_TEXT
            self._beginning = self._found(self._example) if can_be_used else None
        return None

    def _found(self, example: str) -> Beginning | None:
        """The longest of those places behind which the example, cut by itself, is the same tokens; None if it is at none of them."""
        cut = self._tokenizer.backend.encode(example, add_special_tokens=False)  # with the tokens' places in the text
        ids, whole = list(cut.ids), next(self._wholes([example]))
        stop = sum(end <= len(self._shared) for _, end in cut.offsets) - BEHIND
        for start in range(stop - OVERLAP, max(0, stop - OVERLAP - TRIED), -1):
            first, _ = cut.offsets[start]
            for at in (first, first + 1) if example[first] == " " else (first,):  # the latter where each text is given a blank
                if self._ids(example[at:]) == ids[start:]:
                    ends, _ = cut.offsets[stop]
                    before = whole[: len(whole) - len(ids) + start]
                    return Beginning(text=example[:ends], at=at, ids=before, overlap=ids[start:stop])
        return None

    def _ids(self, text: str) -> list[int]:
        return next(self._tokenizer.encode_many([text]))

    def _wholes(self, prompts: Sequence[str]) -> Iterator[list[int]]:
        return self._tokenizer.encode_many(prompts, add_bos=self._tokenizer.render_lacks_bos)
