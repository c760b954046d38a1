"""The middle of a text: which tokens ask for it, in which order, and that a text's own words are none of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import vocabulary, write_tiny_gguf

from nomoat.engine import folder_tokenizer, importer, infill
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.local import LocalEngine
from nomoat.engine.tokenizer import Tokenizer, load
from nomoat.errors import ContextExceededError, UnsupportedError, UsageError
from nomoat.records import Request

QWENS = infill.NAMES[0]
NUM_OTHERS = len(vocabulary())


def with_marks(folder: Path, marks: tuple[str, ...], **said: Any) -> Tokenizer:
    metadata = GGUFFile(write_tiny_gguf(folder / "t.gguf", marks=marks)).metadata
    return from_metadata({**metadata, **{f"tokenizer.ggml.{name}": value for name, value in said.items()}})


@pytest.mark.parametrize(
    ("names", "order"),
    [
        *((names, "prefix a suffix c middle") for names in infill.NAMES[:-2]),
        (("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"), "suffix c prefix a middle"),
        (("[PREFIX]", "[SUFFIX]", "[MIDDLE]"), "suffix c prefix a"),
    ],
)
def test_each_family_is_asked_in_the_order_that_it_learned(names: tuple[str, ...], order: str, tmp_path: Path) -> None:
    tokenizer = with_marks(tmp_path, names)
    ids = {**dict(zip(("prefix", "suffix", "middle"), map(tokenizer.backend.token_to_id, names), strict=True))}
    ids |= {letter: tokenizer.encode(letter)[0] for letter in "ac"}
    assert tokenizer.infill_ids("a", "c") == [ids[part] for part in order.split()]
    assert tokenizer.infill_ids("", "c") == [ids[part] for part in order.split() if part != "a"]


def test_the_tokens_that_begin_a_text_begin_one_with_a_gap(tmp_path: Path) -> None:
    tokenizer = with_marks(tmp_path, QWENS, add_bos_token=True)
    assert tokenizer.infill_ids("a", "c")[:2] == [tokenizer.special.bos_id, NUM_OTHERS]


@pytest.mark.parametrize("kind", ["control", "user defined"])
def test_names_of_tokens_in_a_text_are_letters(kind: str, tmp_path: Path) -> None:
    """Of control tokens, and of marks that a file calls words of its user: code that writes prompts has them in it. Other words of
    the user are tokens, as ever."""
    tokens, marks = vocabulary(), [*QWENS, "<|file_sep|>"]
    types = [3] * 3 + [1] * (len(tokens) - 3) + [3 if kind == "control" else 4] * len(marks) + [4]
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    said = {"tokenizer.ggml.tokens": [*tokens, *marks, "    "], "tokenizer.ggml.token_type": types}
    tokenizer = from_metadata({**metadata, **said})
    before, behind = 'a = "<|fim_middle|>"\n    <|file_sep|>', "# 안녕 <|endoftext|><|fim_prefix|>\n<|im_start|>"
    ids = tokenizer.infill_ids(before, behind)
    named = [at for at in ids if at < 3 or at >= len(tokens)]
    assert named == [len(tokens), len(tokens) + 4, len(tokens) + 1, len(tokens) + 2]
    assert tokenizer.decode(ids, with_control=True) == f"<|fim_prefix|>{before}<|fim_suffix|>{behind}<|fim_middle|>"
    assert tokenizer.encode("<|fim_middle|>") == [len(tokens) + 2]  # a prompt without a gap has them as ever


def test_a_long_side_is_cut_as_a_short_one(tmp_path: Path) -> None:
    tokenizer = with_marks(tmp_path, QWENS)
    text = "<|im_end|> the hello\n" * 4000
    assert tokenizer.infill_ids(text, "c")[1:-3] == tokenizer.infill_ids("<|im_end|> the hello\n", "c")[1:-3] * 4000


@pytest.mark.parametrize("names", [("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")])
def test_what_a_file_names_goes_before_what_is_known_by_name(names: tuple[str, ...], tmp_path: Path) -> None:
    marks = (*QWENS, "<before>", "<behind>", "<between>")
    said = dict(zip((f"{name}_token_id" for name in names), range(NUM_OTHERS + 3, NUM_OTHERS + 6), strict=True))
    tokenizer = with_marks(tmp_path, marks, **said)
    assert tokenizer.decode(tokenizer.infill_ids("a", "c"), with_control=True) == "<before>a<behind>c<between>"
    tokenizer.save(tmp_path)
    assert load(tmp_path).infill_ids("a", "c") == tokenizer.infill_ids("a", "c")
    for strange in (2**32 - 1, -1, "5", None):
        other = with_marks(tmp_path, marks, **{**said, f"{names[1]}_token_id": strange})
        assert other.decode(other.infill_ids("a", "c"), with_control=True) == "<|fim_prefix|>a<|fim_suffix|>c<|fim_middle|>"


def test_what_is_kept_of_a_file_that_names_none_knows_the_tokens_by_name(tmp_path: Path) -> None:
    """As an import of an earlier version does."""
    tokenizer = with_marks(tmp_path, QWENS)
    tokenizer.save(tmp_path)
    assert "infill" not in json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert load(tmp_path).infill_ids("a", "c") == tokenizer.infill_ids("a", "c")


@pytest.mark.parametrize("once", [False, True])
def test_sentencepieces_space_stands_before_the_text_and_not_behind_the_gap(once: bool) -> None:
    """As Code Llama and mistral-common have it: a line that begins behind the gap begins with no space."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "c", "▁a", "▁c", *infill.NAMES[4]]
    facts = {
        "model": "llama", "tokens": tokens, "scores": [0.0] * len(tokens), "bos_token_id": 1, "eos_token_id": 2,
        "token_type": [2, 3, 3, *[6] * 256, *[1] * 5, *[3] * 3],
    }  # fmt: skip
    tokenizer = from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()}, space_once=once)
    found = [tokenizer.backend.id_to_token(at) for at in tokenizer.infill_ids("a", "c")]
    assert found == ["<s>", "▁<PRE>", "▁a", "▁<SUF>", "c", "▁<MID>"]
    assert [tokenizer.backend.id_to_token(at) for at in tokenizer.infill_ids("a", " c")][4] == "▁c"
    assert tokenizer.backend.token_to_id("▁<MID>") in tokenizer.stop_ids(is_middle=True)
    stream = tokenizer.decode_stream(tokenizer.infill_ids("a", "c"))
    assert stream.push(tokens.index("▁a")) == " a"


def test_a_folder_has_them_in_its_own_file_and_may_not_call_them_special(tmp_path: Path) -> None:
    """As Qwen2.5-Coder's `tokenizer.json` does."""
    backend = with_marks(tmp_path, ()).backend
    backend.add_tokens(list(QWENS))
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    tokenizer = folder_tokenizer.read(tmp_path)
    ids = tokenizer.infill_ids("<|fim_suffix|>", "c")
    assert (ids[0], ids[-3], ids[-1]) == (NUM_OTHERS, NUM_OTHERS + 1, NUM_OTHERS + 2)
    assert max(ids[1:-3]) < NUM_OTHERS


@pytest.mark.parametrize("end", ["▁<EOT>", "<|file_separator|>", "<file_sep>"])
def test_a_middle_ends_where_other_answers_need_not(end: str, tmp_path: Path) -> None:
    tokenizer = with_marks(tmp_path, (*QWENS, end))
    assert set(tokenizer.stop_ids(is_middle=True)) - set(tokenizer.stop_ids(is_middle=False)) == {*range(NUM_OTHERS, NUM_OTHERS + 4)}


def test_a_vocabulary_without_them_says_so(tmp_path: Path) -> None:
    for some in ((), QWENS[:2], ("<fim_prefix>", *QWENS[1:])):
        with pytest.raises(UnsupportedError, match=r"^this model has no tokens to fill in the middle of a text\n"):
            with_marks(tmp_path, some).infill_ids("a", "c")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("gap") / "gap.gguf", marks=QWENS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOMOAT_HOME", str(path.parent))
        made = LocalEngine(importer.import_gguf(path))
        yield made
        made.close()


def text_of(engine: LocalEngine, request: Request) -> str:
    return "".join(chunk.text for chunk in engine.generate(request))


def test_a_model_on_this_machine_is_asked_with_them(engine: LocalEngine) -> None:
    gap = Request(prompt="the", suffix="hello", max_new_tokens=8)
    ids = engine.tokenizer.infill_ids("the", "hello")
    assert engine.count_tokens(gap) == len(ids)
    assert text_of(engine, gap) == text_of(engine, Request(prompt_ids=tuple(ids), max_new_tokens=8))
    assert text_of(engine, gap) != text_of(engine, Request(prompt="the", max_new_tokens=8))


def test_a_mark_that_a_model_writes_ends_the_middle(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    gap = Request(prompt="the", suffix="hello", max_new_tokens=8, top_logprobs=0)
    written = [one.token_id for chunk in engine.generate(gap) for one in chunk.likelihoods]
    marks = engine.tokenizer.marks
    assert marks is not None
    monkeypatch.setitem(engine.tokenizer.__dict__, "marks", dataclasses.replace(marks, ends=(written[3],)))
    *_, last = engine.generate(gap)
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == written.index(written[3]) + 1
    *_, last = engine.generate(Request(prompt_ids=tuple(engine.tokenizer.infill_ids("the", "hello")), max_new_tokens=8))
    assert last.finish_reason == "length"


def test_sides_that_are_too_long_and_what_needs_no_gap_are_refused(engine: LocalEngine) -> None:
    for prompt, suffix in (("a" * 300, "c"), ("a", "c" * 300), ("a", "c" * 300_000)):
        with pytest.raises(ContextExceededError):
            engine.generate(Request(prompt=prompt, suffix=suffix))
    with pytest.raises(UnsupportedError, match=r"^likelihoods are of what follows a prompt, and of no middle\n"):
        engine.score(Request(prompt="a", suffix="c"), ["b"])
    with pytest.raises(UsageError, match=r"^`suffix` stands behind a prompt of text\n"):
        Request(prompt_ids=(1,), suffix="c")
    with pytest.raises(UsageError, match="`suffix`"):
        Request(prompt="a", suffix=3)  # type: ignore[arg-type]
