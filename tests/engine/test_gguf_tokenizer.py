"""Tokenizers as a GGUF file's metadata describes them; their ids and texts are in `test_tokenizer.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_tiny_gguf

from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata, stop_ids
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.records import Request


def test_an_unknown_pre_tokenizer_is_refused_rather_than_guessed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="the pre-tokenizer `mystery` is not one that nomoat knows"):
        from_metadata(GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre="mystery")).metadata)


@pytest.mark.parametrize(
    ("pre", "others"),
    [
        ("llama-bpe", ("midm-2.0", "pixtral", "falcon-h1", "lfm2")),
        ("gpt-2", ("a.x-4.0", "gigachat", "mellum")),
        ("qwen2", ("kormo", "hunyuan", "solar-open")),
        ("smollm", ("mellum2",)),
        ("bloom", ("poro-chat", "gpt3-finnish")),
        ("gpt-4o", ("talkie",)),
    ],
)
def test_texts_are_split_as_in_the_family_whose_way_llama_cpp_gives_a_name(tmp_path: Path, pre: str, others: tuple[str, ...]) -> None:
    """Among them Korean models: Mi:dm 2.0, A.X 4.0, KORMo."""
    text = "don't  I'LL 12345 (ok)\n\n 안녕하세요, naïve ⅔…!! HTTPServer\r\n"
    of_all = []
    for name in (pre, *others):
        tokenizer = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre=name)).read_tokenizer()
        splits = tokenizer.backend.pre_tokenizer.pre_tokenize_str(text)
        of_all.append((splits, tokenizer.backend.model.ignore_merges, tokenizer.special.add_bos))
    assert all(each == of_all[0] for each in of_all)


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("llama3", True), ("llama-v3", True), ("falcon3", True),
                                             ("tekken", True), ("gpt-4o", False), ("smollm", False), ("qwen2", False)])  # fmt: skip
def test_a_file_that_does_not_say_so_begins_texts_as_llama_cpp_does(tmp_path: Path, pre: str, begins: bool) -> None:
    """Where `tokenizer.ggml.add_bos_token` is not written: many files of Llama 3. Conversations begin as their template says."""
    file = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre=pre))
    tokenizer = file.read_tokenizer()
    assert (tokenizer.prompt_ids(Request(prompt="the"))[0] == tokenizer.special.bos_id) == begins
    for said in (True, False):
        tokenizer = from_metadata({**file.metadata, "tokenizer.ggml.add_bos_token": said})
        assert (tokenizer.encode("the", add_bos=True)[0] == tokenizer.special.bos_id) == said


def test_a_merge_of_more_than_two_parts_is_none(tmp_path: Path) -> None:
    """As in llama.cpp. Who makes merges of tiktoken's ranks has some of words that no pair leads to. One without a space is damage,
    as is a file without any other."""
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    merges, ids = metadata["tokenizer.ggml.merges"], from_metadata(metadata).encode("hello the abc")
    assert from_metadata({**metadata, "tokenizer.ggml.merges": ["h e l", *merges]}).encode("hello the abc") == ids
    for damaged in (["he", *merges], [f"{merge} x" for merge in merges]):
        with pytest.raises(BadFileError, match="the file's vocabulary and merges do not fit together"):
            from_metadata({**metadata, "tokenizer.ggml.merges": damaged})


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"eos_token_id": 60_000}, "the file says `tokenizer.ggml.eos_token_id` = 60000, and has 4 tokens"),
        ({"eos_token_id": None}, "the file does not say `tokenizer.ggml.eos_token_id`"),
        ({"tokens": None}, "the file does not say `tokenizer.ggml.tokens`"),
    ],
)
def test_a_tokenizer_that_is_not_whole_names_what_is_wrong(said: dict[str, int | None], message: str) -> None:
    facts = {"model": "llama", **PIECES, **said}
    with pytest.raises(BadFileError) as caught:
        from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items() if value is not None})
    assert caught.value.message == message


PIECES = {"tokens": ["<unk>", "<s>", "</s>", "a"], "scores": [0.0] * 4, "token_type": [2, 3, 3, 1], "eos_token_id": 2}


@pytest.mark.parametrize("said", [{}, {"add_bos_token": True}, {"bos_token_id": 2**32 - 1}])
def test_sentencepieces_usual_token_begins_texts_where_a_file_does_not_say_which(said: dict[str, int]) -> None:
    """As in llama.cpp, which takes number 1 whatever it is."""
    facts = {"model": "llama", **PIECES, **said}
    special = from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()}).special
    assert (special.bos_id, special.begin_ids) == (1, (1,))
    facts["tokens"] = ["<unk>", "</s>", "<s>", "a"]
    with pytest.raises(BadFileError, match="the file begins each text with a token, and does not say which"):
        from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()})
    facts["add_bos_token"] = False
    assert from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()}).special.begin_ids == ()


def test_a_byte_level_file_that_does_not_say_which_token_begins_texts_begins_them_with_none(tmp_path: Path) -> None:
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre="llama-bpe")).metadata
    del metadata["tokenizer.ggml.bos_token_id"]
    assert from_metadata(metadata).special.begin_ids == ()
    assert from_metadata({**metadata, "tokenizer.ggml.add_bos_token": True}).special.begin_ids == ()


def test_the_tokens_that_a_file_says_end_a_turn_or_a_message_end_an_answer(tmp_path: Path) -> None:
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    before = from_metadata(metadata).special.stop_ids
    said = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 6}
    assert from_metadata({**metadata, **said}).special.stop_ids == tuple(sorted({*before, 5, 6}))
    none = {"tokenizer.ggml.eot_token_id": 2**32 - 1}  # as some files write for none
    assert from_metadata({**metadata, **none}).special.stop_ids == before
    with pytest.raises(BadFileError, match=r"the file's `tokenizer\.ggml\.eot_token_id` is not what it should be"):
        from_metadata({**metadata, "tokenizer.ggml.eot_token_id": "5"})


def test_the_end_of_a_message_is_known_by_its_name() -> None:
    """Llama 3.1 ends so what it wants a tool to run."""
    assert stop_ids([2], {"<|eom_id|>": 7}.get) == (2, 7)


@pytest.mark.parametrize("mark", ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<reponame>"])
def test_code_ends_where_another_file_begins(mark: str) -> None:
    """As in llama.cpp: Qwen2.5-Coder goes on so behind what it was to fill in."""
    assert stop_ids([2], {mark: 7}.get) == (2, 7)


def test_a_mark_of_turns_among_words_of_bytes_is_a_mark(tmp_path: Path) -> None:
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    at = metadata["tokenizer.ggml.tokens"].index("<|im_end|>")
    types = [int(kind) for kind in metadata["tokenizer.ggml.token_type"]]
    types[at] = 1
    tokenizer = from_metadata({**metadata, "tokenizer.ggml.token_type": types})
    assert tokenizer.encode("the<|im_end|>")[-1] == at
    assert tokenizer.decode(tokenizer.encode("the<|im_end|>")) == "the"


def test_a_piece_of_a_hundred_thousand_letters_is_refused_at_once() -> None:
    """Cut in every place it would be five billion letters."""
    facts = {
        "model": "llama", "tokens": ["<unk>", "</s>", "a" * 100_000], "scores": [0.0, 0.0, 0.0], "token_type": [2, 3, 1],
        "eos_token_id": 1,
    }  # fmt: skip
    with pytest.raises(BadFileError, match="has a piece of 100,000 letters"):
        from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()})
