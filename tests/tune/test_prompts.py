"""What prompts begin with alike is cut into tokens once, and they are the same tokens as without that."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import tokenizers
from tiny import MERGES, vocabulary
from tokenizers import models

from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.tokenizer import SpecialTokens, Tokenizer
from nomoat.tune.prompts import SHORTEST, AlikePrompts

QUESTION = f"<|im_start|>user\nAnswer with one of: {', '.join(f'label {n}' for n in range(77))}.\n\nText: "
PIECES = ["he", "llo", " ", "\n", "\n\n", "한", "é", "\u0301", "<|im_end|>", "T", "1", ":"]


def of_bytes(metadata: dict[str, object]) -> Tokenizer:
    return from_metadata(metadata)


def test_what_a_unigram_tokenizer_cuts_is_cut_whole() -> None:
    """Its tokens are not merged: `000` is `0`, `00` or `00`, `0`, by how the scores of all that stands before are rounded."""
    letters = [(letter, -0.2173 * at - 0.1) for at, letter in enumerate(string.ascii_letters)]
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", -9.0), *letters, ("0", -7.123456), ("00", -9.654321)], 0, False))
    tokenizer = Tokenizer(backend, SpecialTokens(bos_id=None, eos_id=0, stop_ids=(0,), begin_ids=()), None)
    chance = random.Random(2)
    alike, begins = AlikePrompts(tokenizer), "".join(chance.choices(string.ascii_letters, k=SHORTEST + 100))
    for _ in range(100):
        prompt = begins + "".join(chance.choices(["a", "b", "000"], k=chance.randrange(20)))
        assert alike.cut([prompt]) == [tokenizer.encode(prompt)]


def of_sentencepiece(metadata: dict[str, object]) -> Tokenizer:
    """A blank before each text, which the end of a prompt by itself would begin with."""
    pieces = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "▁h"]
    facts = {
        "model": "llama", "tokens": pieces, "scores": [0.0] * len(pieces), "token_type": [2, 3, 3, *[6] * 256, 1, 1, 1],
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return from_metadata({"general.architecture": "llama", **{f"tokenizer.ggml.{name}": value for name, value in facts.items()}})


def of_a_chain(metadata: dict[str, object]) -> Tokenizer:
    """Of `abcdef…` the last two letters are one token first, so all before them hang on how far it goes."""
    pairs = list(pairwise(string.ascii_letters))[::-1]
    tokens = list(dict.fromkeys([*vocabulary(), *map("".join, pairs)]))
    merges, types = [*map(" ".join, pairs), *MERGES], [3, 3, 3, *[1] * (len(tokens) - 3)]
    facts: dict[str, object] = {"tokens": tokens, "merges": merges, "token_type": types}
    return from_metadata(metadata | {f"tokenizer.ggml.{name}": value for name, value in facts.items()})


@pytest.mark.parametrize("made", [of_bytes, of_sentencepiece, of_a_chain])
@pytest.mark.parametrize("lacks_bos", [False, True])
def test_prompts_are_the_same_tokens_as_each_by_itself(
    tiny_gguf: Path, made: Callable[[dict[str, object]], Tokenizer], lacks_bos: bool
) -> None:
    tokenizer, chance = made(GGUFFile(tiny_gguf).metadata), random.Random(0)
    tokenizer.render_lacks_bos = lacks_bos
    for at in range(20):
        alike, prompts = AlikePrompts(tokenizer), list[str]()
        for _ in range(10):
            chain = string.ascii_letters[: chance.randrange(40, 53)]
            text = chain if at % 2 else "".join(chance.choices(PIECES, k=chance.randrange(9)))
            begins = QUESTION[: chance.randrange(SHORTEST, len(QUESTION))] if chance.random() < 0.05 else QUESTION
            prompts.append(f"{begins}{text}\nLabel:<|im_end|>\n<|im_start|>assistant\n")
        known = chance.randrange(10)  # and those that come together then
        found = [*(ids for prompt in prompts[:known] for ids in alike.cut([prompt])), *alike.cut(prompts[known:])]
        assert found == [tokenizer.encode(prompt, add_bos=lacks_bos) for prompt in prompts]


@pytest.mark.parametrize("made", [of_bytes, of_sentencepiece])
@pytest.mark.parametrize("ends", ["", "T", "é", "\n", "e" * 5, ":\n\n", "end.\n\nT: "])
def test_the_beginning_is_cut_once(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[dict[str, object]], Tokenizer], ends: str
) -> None:
    tokenizer, encode, cut = made(GGUFFile(tiny_gguf).metadata), Tokenizer.encode_many, list[str]()

    def encode_many(self: Tokenizer, texts: list[str], **how: bool) -> Iterator[list[int]]:
        cut.extend(texts)
        return encode(self, texts, **how)

    monkeypatch.setattr(Tokenizer, "encode_many", encode_many)
    alike = AlikePrompts(tokenizer)
    for text in (f"{letter}{n} is?" for n in range(10) for letter in string.ascii_letters):
        alike.cut([f"{QUESTION}{ends}{text}\nLabel:"])
    assert sum(map(len, cut)) < 0.1 * 520 * len(QUESTION)
