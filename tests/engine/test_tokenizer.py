"""Tokenizers and chat templates, against the reference implementations."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import transformers
from tiny import write_tiny_gguf
from tokenizers import AddedToken, Regex, pre_tokenizers

from nomoat.engine import tokenizer as tokenizing
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.grammar import Grammars
from nomoat.engine.pre_tokenizers import PRE_TOKENIZERS
from nomoat.engine.tokenizer import COUNTED_TEXT, LONG_TEXT, Tokenizer, load
from nomoat.errors import BadFileError, UnsupportedError, UsageError
from nomoat.records import Effort, Message, Request, ToolResult, Verbosity

TORTURE = (
    "Hello  world\n\n\n  don't  I'LL 1234567890 3.14 x=y+1;\n\tdef f(a):\n        return a  # 주석\n"
    "안녕하세요, 대한민국! ㅋㅋㅋ 漢字かな 🙂👨‍👩‍👧‍👦🇰🇷 é é naïve Ω ≠ … “quotes”\r\n  trailing   "
)


def of(path: Path) -> Tokenizer:
    return from_metadata(GGUFFile(path).metadata)


def with_template(folder: Path, template: str) -> Tokenizer:
    """Of a file with this one, which is one as it speaks of messages."""
    return of(write_tiny_gguf(folder / "t.gguf", template=f"{template}{{# messages #}}"))


def test_what_the_tokenizer_panics_over_is_an_error_that_names_it(tmp_path: Path) -> None:
    """It is written in Rust, whose panics are no `Exception`. This regex takes steps by the power of the letters."""
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    split = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer.backend.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.backend.pre_tokenizer])
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    for text in ("a" * 40 + "!", "a" * LONG_TEXT + "!"):
        with pytest.raises(UnsupportedError) as caught:
            tokenizer.encode(text)
        assert caught.value.message.startswith(f"the model's tokenizer cannot cut a text of {len(text):,} characters into tokens: ")
        assert caught.value.hint == "give a shorter text, or another model"


def test_of_a_text_far_beyond_a_context_only_the_beginning_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting takes some 150 times a text's bytes. One that the tokenizer gives up on is nothing that is known to be beyond."""
    tokenizer, cut, encode = of(write_tiny_gguf(tmp_path / "t.gguf")), list[int](), Tokenizer.encode

    def counted(self: Tokenizer, text: str, **how: bool) -> list[int]:
        cut.append(len(text))
        return encode(self, text, **how)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    text = "해자 moat " * (COUNTED_TEXT // 2)
    assert tokenizer.is_beyond(text, 256) and cut == [COUNTED_TEXT]
    assert not tokenizer.is_beyond(text[:COUNTED_TEXT], 256) and not tokenizer.is_beyond(text, len(encode(tokenizer, text)))
    split = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer.backend.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.backend.pre_tokenizer])
    assert not tokenizer.is_beyond("a" * (COUNTED_TEXT - 1) + "!" + text, 256)


def test_of_a_text_in_few_tokens_more_is_looked_at_until_it_is_beyond_or_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    tokenizer, cut = of(write_tiny_gguf(tmp_path / "t.gguf")), list[int]()
    monkeypatch.setattr(Tokenizer, "encode", lambda _self, text: cut.append(len(text)) or [0] * (len(text) // 100))
    text = "a" * 20 * COUNTED_TEXT
    assert tokenizer.is_beyond(text, 4 * COUNTED_TEXT // 100) and cut == [COUNTED_TEXT * at for at in (1, 4, 16)]
    assert not tokenizer.is_beyond(text, 10 * COUNTED_TEXT // 100)


def test_spaces_that_a_token_behind_them_takes_make_no_text_long(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    tokenizer.backend.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    text = " " * 2 * COUNTED_TEXT + "<mask>"
    assert len(tokenizer.encode(text)) == 1 and not tokenizer.is_beyond(text, 256)
    assert tokenizer.is_beyond("word" * COUNTED_TEXT, 256)


def test_long_texts_are_cut_one_at_a_time_and_what_that_took_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 threads of a server at once would take gigabytes, which glibc keeps for the threads."""
    tokenizer, at_once, events = of(write_tiny_gguf(tmp_path / "t.gguf")), 0, list[str | int]()
    encode_many = Tokenizer.encode_many

    def cutting(self: Tokenizer, texts: list[str], **how: bool) -> Iterator[list[int]]:
        nonlocal at_once
        at_once += 1
        events.append(at_once)
        time.sleep(0.01)  # in which another thread would begin
        try:
            yield from encode_many(self, texts, **how)
        finally:
            at_once -= 1

    monkeypatch.setattr(Tokenizer, "encode_many", cutting)
    monkeypatch.setattr("nomoat.hardware.give_back_freed_memory", lambda: events.append("given back"))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(len, pool.map(tokenizer.encode, ["word " * (LONG_TEXT // 5)] * 4)))) == 1
    assert events == [1, "given back"] * 4


def test_what_reading_a_vocabulary_took_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Gemma's 262,000 tokens the C library kept 290 MB."""
    of(write_tiny_gguf(tmp_path / "t.gguf")).save(tmp_path)
    given_back = list[str]()
    monkeypatch.setattr("nomoat.hardware.give_back_freed_memory", lambda: given_back.append("once"))
    assert load(tmp_path).encode("the") and given_back == ["once"]


FORK = """
import os, signal, sys, threading
from pathlib import Path
from nomoat.engine import tokenizer
from nomoat.engine.gguf import GGUFFile
cutter = GGUFFile(Path(sys.argv[1])).read_tokenizer()
held = threading.Event()
def cut():
    with tokenizer.LONG_TEXTS:
        held.set()
        threading.Event().wait()
threading.Thread(target=cut, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(len(cutter.encode("word " * tokenizer.LONG_TEXT)) == 0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_fork_does_not_wait_for_a_text_that_another_process_s_thread_was_cutting(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(write_tiny_gguf(tmp_path / "t.gguf"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "mpt", "olmo", "bloom", "falcon"])
def test_any_text_comes_back_from_its_ids(tmp_path: Path, pre: str) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf", pre=pre))
    text = TORTURE.replace("é", "e") if pre == "qwen2" else TORTURE  # Qwen composes accents
    assert tokenizer.decode(tokenizer.encode(text)) == text


TWO_TEMPLATES = (
    "{% for message in messages %}{{ message.content }}{% endfor %}",
    "{{ tools | length }} tools{% for message in messages %}{{ message.content }}{{ message.tool_calls }}{% endfor %}",
)


def asked_with_tools(tokenizer: Tokenizer) -> tuple[str, tuple[str, ...]]:
    """A prompt with a function, and the notes on it; the first template is for conversations without any."""
    asked = Request(messages=(Message(role="user", content="hi"),))
    assert tokenizer.prompt_text(asked)[0] == "hi"
    request = replace(asked, tools=(json.dumps({"type": "function", "function": {"name": "f"}}),))
    return tokenizer.prompt_text(request)[0], tokenizer.notes_on(request)


def test_a_conversation_with_functions_has_the_file_s_own_template_for_them(tmp_path: Path) -> None:
    """As Hermes 3 and Mistral bring one, and as `transformers` chooses."""
    keys = dict(zip(("tokenizer.chat_template", "tokenizer.chat_template.tool_use"), TWO_TEMPLATES, strict=True))
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata | keys
    tokenizer = from_metadata(metadata)
    tokenizer.save(tmp_path)
    for made in (tokenizer, load(tmp_path)):
        assert asked_with_tools(made) == ("1 toolshi", ())
    tokenizer.use_template("chatml")
    assert "<|im_start|>user\nhi" in tokenizer.render((Message(role="user", content="hi"),), tools=['{"function": {}}'])
    with pytest.raises(BadFileError, match=r"the file's `tokenizer\.chat_template\.tool_use` is not what it should be"):
        from_metadata(metadata | {"tokenizer.chat_template.tool_use": 5})


def test_a_template_for_functions_whose_calls_would_stay_text_is_not_used(tmp_path: Path) -> None:
    """The first Command Rs write them in words that are not read here."""
    others = (TWO_TEMPLATES[0], TWO_TEMPLATES[1] + '{"tool_name": "f"}')
    keys = dict(zip(("tokenizer.chat_template", "tokenizer.chat_template.tool_use"), others, strict=True))
    told, notes = asked_with_tools(from_metadata(GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata | keys))
    assert told.startswith("# Tools") and notes == ("the model's chat template knows no tools: they stand in the system message",)


LLAMA_CPP = json.loads((Path(__file__).parent / "llama_cpp_splits.json").read_text(encoding="utf-8"))
MARKS = "cafe\u0301@École@ हिन्दी@ ไทยไม่มี@ שָׁלוֹם"
OF_THEIR_OWN = {  # where llama.cpp comes near to the expression of a family's own tokenizer, and is not the same
    "tekken": [MARKS],  # it has [^a-z] and [^A-Z] in place of letters and marks by their case
    "gpt-4o": [MARKS],
    # it takes spaces that are not ASCII for another, which is not in [ࠀ-一] as some of them are
    "deepseek-coder": ["a@\u2028@line@\u2029@para@\x85next@\u00a0nbsp@\u3000@wide", "\u3000@，@“@ @\u2028“@\u2003@!"],
}


def in_bytes(text: str) -> str:
    """As a byte-level vocabulary writes it."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]


def by_digits(part: str) -> list[str]:
    """Falcon's own tokenizer looks for digits among bytes, too, of which some are written as numbers; llama.cpp does not."""
    return [piece for piece in re.split("([0-9²³¹¼½¾]+)", part) if piece]


@pytest.mark.parametrize("way", LLAMA_CPP["ways"], ids=lambda way: way["pre"][0])
def test_texts_are_split_as_llama_cpp_splits_them_but_where_the_familys_own_tokenizer_does_not(
    way: dict[str, list[str]], tmp_path: Path
) -> None:
    metadata, family = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata, way["pre"][0]
    own = {split.replace("@", ""): split for split in OF_THEIR_OWN.get(family, [])}
    for pre, split in itertools.product(way["pre"], way["splits"]):
        text = split.replace("@", "")
        parts = [in_bytes(part) for part in own.get(text, split).split("@")]
        expected = list(itertools.chain.from_iterable(map(by_digits, parts))) if family == "falcon" else parts
        backend = from_metadata({**metadata, "tokenizer.ggml.pre": pre}).backend
        assert [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)] == expected, (pre, text)


def test_words_come_before_merges_and_a_token_before_texts_as_in_llama_cpp(tmp_path: Path) -> None:
    """`chatglm-bpe` is GLM-4's vocabulary, too: its own tokenizer, tiktoken, looks for the word first, and llama.cpp does not."""
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    made = {pre: from_metadata({**metadata, "tokenizer.ggml.pre": pre}) for pre in PRE_TOKENIZERS}
    assert made.keys() == {pre for way in LLAMA_CPP["ways"] for pre in way["pre"]}, "make_llama_cpp_splits.py anew"
    assert {pre for pre in made if made[pre].backend.model.ignore_merges} == {*LLAMA_CPP["whole_words_first"], "chatglm-bpe"}
    assert {pre for pre in made if made[pre].special.add_bos} == {*LLAMA_CPP["begins_texts"]}


def test_a_word_of_glm_4_to_which_no_merges_lead_is_found(tmp_path: Path) -> None:
    """As " 王", of which its merges put the space to the first byte."""
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre="glm4")).metadata
    tokens, types = metadata["tokenizer.ggml.tokens"], map(int, metadata["tokenizer.ggml.token_type"])
    more = {"tokens": [*tokens, in_bytes(" 王")], "token_type": [*types, 1]}
    tokenizer = from_metadata(metadata | {f"tokenizer.ggml.{name}": values for name, values in more.items()})
    assert tokenizer.encode("国 王") == [*tokenizer.encode("国"), len(tokens)]


@pytest.mark.data
@pytest.mark.parametrize(
    ("fixture", "card"), [("smollm2_gguf", "smollm2-135m"), ("qwen_coder_gguf", "qwen2.5-coder-0.5b"), ("gemma_gguf", "gemma3-270m")]
)
def test_ids_of_real_models_equal_llama_cpps(fixture: str, card: str, request: pytest.FixtureRequest) -> None:
    """On a text of many scripts, emoji, code, numbers, spaces and control tokens.

    Left out: accents written apart, which Qwen2's own tokenizer composes and llama.cpp does not, and `</s>` in models that have it as
    an ordinary token, which llama.cpp takes for a control token.
    """
    tokenizer = of(request.getfixturevalue(fixture))
    known = json.loads((Path(__file__).parent / "llama_cpp_ids.json").read_text(encoding="utf-8"))
    for text, ids in zip(known["texts"], known["ids"][card], strict=True):
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text or any(mark in text for mark in ("<|", "<bos>")), text


def test_text_comes_in_whole_characters_while_it_is_decoded(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    stream = tokenizer.decode_stream()
    pieces = [stream.push(token) for token in tokenizer.encode("한글 🙂 ok")]
    assert "".join(pieces) + stream.finish() == "한글 🙂 ok"
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_such_and_left_out_where_the_answer_was_cut(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    half = tokenizer.encode("한")[:2]
    for is_cut, end in ((False, "\ufffd"), (True, "")):
        stream = tokenizer.decode_stream()
        assert "".join(stream.push(token) for token in half) == ""
        assert stream.finish(is_cut=is_cut) == end


def test_bytes_that_are_no_text_are_shown_where_the_answer_was_cut_too(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    at = {tokenizer.token_bytes(token): token for token in tokenizer.backend.get_vocab().values()}
    assert all(bytes([byte]) in at for byte in range(256))
    for ids, text in (([0xFF], "\ufffd"), ([0xEA, 0xFF], "\ufffd\ufffd"), ([0xFF, 0xED, 0x95], "\ufffd"), ([0xF0, 0x9F, 0x99], "")):
        stream = tokenizer.decode_stream()
        assert [stream.push(at[bytes([byte])]) for byte in ids] == [""] * len(ids)
        assert stream.finish(is_cut=True) == text


def test_an_added_token_in_letters_of_its_own_stands_for_itself(tmp_path: Path) -> None:
    """One of its letters, but not the other, is how the vocabulary writes a byte."""
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    tokenizer.backend.add_tokens(["é 해자"])
    (token,) = tokenizer.encode("é 해자")
    assert tokenizer.token_bytes(token).decode() == tokenizer.decode([token]) == "é 해자"
    assert tokenizer.token_bytes(token + 1) == b""


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_tokens_that_fill_up_a_vocabulary_are_no_text_and_no_text_becomes_one(
    kind: str, tmp_path: Path, pieces: sentencepiece.SentencePieceProcessor
) -> None:
    """As Qwen2.5's `[PAD151886]`, which answers at high temperatures showed. What ends texts is none, whatever the file says."""
    before = of(write_tiny_gguf(tmp_path / "t.gguf")) if kind == "bytes" else of_pieces(pieces)
    metadata = GGUFFile(tmp_path / "t.gguf").metadata if kind == "bytes" else facts_of_pieces(pieces)
    metadata["tokenizer.ggml.token_type"] = list(map(int, metadata["tokenizer.ggml.token_type"]))
    end = metadata["tokenizer.ggml.eot_token_id"] = len(metadata["tokenizer.ggml.tokens"])
    padding = end + 1
    more = {"tokens": ["[PAD1]", "[PAD2]", "[PAD3]"], "token_type": [5] * 3, "scores": [0.0] * 3}
    added = {f"tokenizer.ggml.{name}": [*metadata.get(f"tokenizer.ggml.{name}", []), *values] for name, values in more.items()}
    from_metadata({**metadata, **added}).save(tmp_path)
    tokenizer = load(tmp_path)
    ids = tokenizer.encode("the [PAD2] of 한글")
    assert ids == before.encode("the [PAD2] of 한글")
    assert tokenizer.decode([*ids, padding]) == before.decode(ids) and tokenizer.token_bytes(padding) == b""
    assert "".join(pushed(tokenizer, [*ids[:1], padding, *ids[1:], padding])) == before.decode(ids)
    assert (tokenizer.special.stop_ids[-1], tokenizer.backend.id_to_token(end), tokenizer.decode([end])) == (end, "[PAD1]", "")
    grammar = Grammars(tokenizer, padding + 2).of_schema('{"type": "string"}')
    logits_V = np.zeros(padding + 2, np.float32)
    grammar.forbid(logits_V)
    assert np.isneginf(logits_V[end:]).all() and np.isfinite(logits_V).any()


def test_a_token_of_a_character_and_half_of_the_next_gives_the_whole_one(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf")
    tokenizer = of(path)
    whole, half = tokenizer.encode("한"), tokenizer.encode("한")[:2]
    joined = "".join(tokenizer.backend.id_to_token(token) for token in (*whole, *half))
    metadata = GGUFFile(path).metadata
    tokens = [*metadata["tokenizer.ggml.tokens"], joined]
    types = [*map(int, metadata["tokenizer.ggml.token_type"]), 1]
    more = from_metadata({**metadata, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    stream = more.decode_stream()
    assert (stream.push(len(tokens) - 1), stream.finish(is_cut=True)) == ("", "한")


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert again.encode(TORTURE) == tokenizer.encode(TORTURE)
    assert (again.special, again.chat_template) == (tokenizer.special, tokenizer.chat_template)


@pytest.mark.parametrize(
    ("name", "part", "damaged"),
    [
        ("tokenizer.json", '"type"', "type"),
        ("tokenizer.json", '"BPE"', '"BPF"'),
        ("tokenizer_config.json", "{", "["),
        ("tokenizer_config.json", '"stop_ids"', '"stop_idx"'),
    ],
)
def test_a_damaged_tokenizer_is_named_with_its_folder(tmp_path: Path, name: str, part: str, damaged: str) -> None:
    """A cache whose files are as long as they were: it is not made again."""
    of(write_tiny_gguf(tmp_path / "t.gguf")).save(tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert part in text
    (tmp_path / name).write_text(text.replace(part, damaged, 1), encoding="utf-8")
    with pytest.raises(BadFileError) as caught:
        load(tmp_path)
    assert caught.value.message.startswith(f"`{tmp_path}` is not a whole imported model: ")
    assert caught.value.hint == "remove that folder and try again"


def test_the_template_of_the_file_is_used(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    text = tokenizer.render((Message(role="system", content="s"), Message(role="user", content="u")))
    assert text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode(text)[0] == 1  # the control token, not its letters


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% generation %}{% set said = m['content'] %}{{ said }}{% endgeneration %}{{ said }}{% endfor %}",
        "{% if tools is none and documents is none %}no tools{% endif %}",
        "{{ {'b': 'é<', 'a': [1, 2]} | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}",
        "{{ {'b': 'é<', 'a': [1, 2]} | tojson(indent=2) }}",
        "{{ 20240 | tojson }}",
        "{{ 'a'.ljust(9) ~ '%5d, 100%%' % 1 ~ '{:>4}|{}'.format(1, 2) ~ 7 % 4 ~ ('=' * 3) ~ 2 ** 3 ~ ('%s' | format('c')) }}",
    ],
)
def test_a_template_is_rendered_as_transformers_does(template: str, tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, template)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend)
    text = theirs.apply_chat_template([{"role": "user", "content": "u"}], chat_template=template, tokenize=False)
    assert tokenizer.render((Message(role="user", content="u"),)) == text != ""


THINKING = "{% if enable_thinking is defined and enable_thinking is false %}quiet{% else %}loud{% endif %}"


def asking(template: str, tmp_path: Path, effort: Effort | None = None, **variables: object) -> tuple[str, tuple[str, ...]]:
    """The prompt, and what is said of it."""
    tokenizer = with_template(tmp_path, template)
    told = json.dumps(variables) if variables else ""
    request = Request(messages=(Message(role="user", content="u"),), template_variables=told, reasoning_effort=effort)
    return tokenizer.prompt_text(request)[0], tokenizer.notes_on(request)


def test_a_template_is_told_the_variables_of_a_request_and_those_it_does_not_read_are_named(tmp_path: Path) -> None:
    assert asking(THINKING, tmp_path) == ("loud", ())
    assert asking(THINKING, tmp_path, enable_thinking=False) == ("quiet", ())
    tokenizer = with_template(tmp_path, "{{ template }}{{ context }}")
    assert tokenizer.render((Message(role="user", content="u"),), {"template": "서울", "context": 1, "self": 2}) == "서울1"
    assert asking("{% set later = 1 %}{{ place }}{{ later }}", tmp_path, place="서울", later=2) == (
        "서울1", ("the model's chat template does not read `later`",),
    )  # fmt: skip


def test_an_effort_is_what_the_template_makes_of_it(tmp_path: Path) -> None:
    assert asking(THINKING, tmp_path, "none") == ("quiet", ())
    assert asking(THINKING, tmp_path, "high") == ("loud", ())
    assert asking(THINKING, tmp_path, "none", enable_thinking=True) == ("loud", ())
    assert asking("effort: {{ reasoning_effort }}", tmp_path, "none") == ("effort: none", ())
    assert asking("nothing of it", tmp_path, "low") == ("nothing of it", ())


def test_the_names_of_who_speaks_are_not_told_which_is_said_but_of_a_functions(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf", template="{% for message in messages %}{{ message }}{% endfor %}"))
    named = Request(messages=(Message(role="user", content="u", name="alice"),))
    assert "alice" not in tokenizer.prompt_text(named)[0]
    assert tokenizer.notes_on(named) == ("the model is not told the `name` of who speaks",)
    result = ToolResult(role="tool", content="1", call_id="a", name="f")
    assert tokenizer.notes_on(Request(messages=(Message(role="user", content="u"), result))) == ()


@pytest.mark.parametrize(
    ("verbosity", "notes"),
    [("medium", ()), ("low", ("the model is not told `verbosity`: say in a message how long the answer is to be",))],
)
def test_a_verbosity_that_is_not_the_usual_one_is_said_not_to_be_told(
    verbosity: Verbosity, notes: tuple[str, ...], tmp_path: Path
) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    assert tokenizer.notes_on(Request(messages=(Message(role="user", content="u"),), verbosity=verbosity)) == notes


def test_variables_that_a_template_is_given_anyway_and_what_are_none_are_refused() -> None:
    question = (Message(role="user", content="u"),)
    with pytest.raises(UsageError, match="the template's variable `messages` is set from the conversation itself"):
        Request(messages=question, template_variables='{"messages": [], "x": 1}')
    for text in ("[1]", "{", '{"x": "\\ud800"}'):
        with pytest.raises(UsageError):
            Request(messages=question, template_variables=text)


def test_an_answer_that_is_begun_goes_on_after_the_template(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf"))
    request = Request(messages=(Message(role="user", content="u"),), answer_start="Sure 🙂:\n")
    assert tokenizer.prompt_text(request)[0].endswith("<|im_start|>assistant\nSure 🙂:\n")
    with pytest.raises(UsageError, match="only the answer of a conversation is begun"):
        Request(prompt="u", answer_start="Sure")


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    tokenizer = of(write_tiny_gguf(tmp_path / "t.gguf", template=None))
    with pytest.raises(UnsupportedError, match="this model has no chat template"):
        tokenizer.render((Message(role="user", content="u"),))


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    tokenizer = with_template(tmp_path, "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(UnsupportedError, match=r"the model's chat template fails: access to attribute '__class__' .* is unsafe"):
        tokenizer.render((Message(role="user", content="u"),))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}", "{{ 2 ** (10**9) }}", "{{ 1 / 0 }}", "{{ messages | sort }}", "{% if %}",
        "{{ 'a'.ljust(20000) }}", "{{ 'a'.rjust(20000) }}", "{{ 'a'.center(20000) }}", "{{ 'a'.zfill(20000) }}",
        "{{ '\\t'.expandtabs(tabsize=20000) }}", "{{ (1).to_bytes(20000, 'big') }}", "{{ 'a' | center(20000) }}",
        "{{ ['a'] | map('center', 20000) | join }}", "{{ 'a' | indent(width=20000, first=true) }}", "{{ 'a' | attr('ljust')(20000) }}",
        "{{ [1] | batch(20000, 0) | list }}", "{{ [1] | slice(20000) | list }}", "{{ [1] | tojson(indent=20000) }}",
        "{{ '%20000d' % 1 }}", "{{ '%*d' % (20000, 1) }}", "{{ '%.20000f' | format(1) }}", "{{ '%(a)20000d' % {'a': 1} }}",
        "{{ '{:>20000}'.format(1) }}", "{{ '{:{}}'.format(1, 20000) }}", "{{ '{a:20000}'.format_map({'a': 1}) }}",
        "{{ lipsum(n=200) }}",
    ],
)  # fmt: skip
def test_a_template_that_fails_or_would_fill_the_memory_is_an_error(tmp_path: Path, template: str) -> None:
    tokenizer = with_template(tmp_path, template)
    with pytest.raises(UnsupportedError, match=r"the model's chat template fails: .") as caught:
        tokenizer.render((Message(role="user", content="u"), Message(role="assistant", content="a")))
    assert str(caught.value.hint).startswith("`--template NAME` (in Python: `template`) puts another in its place: alpaca, ")


def test_memory_that_is_out_is_told_as_such(tmp_path: Path) -> None:
    """Python's own error has no words."""

    def run_out() -> None:
        raise MemoryError

    tokenizer = with_template(tmp_path, "{{ run_out() }}")
    with pytest.raises(UnsupportedError, match="the model's chat template fails: it asks for more memory than there is"):
        tokenizer.render((Message(role="user", content="u"),), {"run_out": run_out})


@pytest.mark.parametrize(
    ("arch", "pre"),
    [
        ("falcon", "falcon"),
        ("bloom", "bloom"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen2"),
        ("mpt", "mpt"),
        ("gptneox", "mpt"),
        ("gpt2", "gpt-2"),
    ],
)
def test_a_file_that_names_no_pre_tokenizer_is_split_as_its_architecture_was_trained(arch: str, pre: str, tmp_path: Path) -> None:
    """Files older than May 2024."""
    file = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", pre=pre))
    unsaid = {name: value for name, value in file.metadata.items() if name != "tokenizer.ggml.pre"}
    tokenizer, named = from_metadata({**unsaid, "general.architecture": arch}), file.read_tokenizer()
    pieces, expected = (each.backend.pre_tokenizer.pre_tokenize_str(TORTURE) for each in (tokenizer, named))
    assert pieces == expected
    for text in (TORTURE, unicodedata.normalize("NFD", TORTURE)):
        assert tokenizer.encode(text) == named.encode(text)


@pytest.mark.parametrize("said", [{}, {"tokenizer.ggml.pre": "default"}])
def test_a_llama_3_that_names_no_pre_tokenizer_is_known_by_its_vocabulary_and_others_are_refused(
    said: dict[str, str], tmp_path: Path
) -> None:
    metadata = dict(GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata)
    del metadata["tokenizer.ggml.pre"]
    metadata |= said
    with pytest.raises(UnsupportedError, match=r"the file does not say how its tokenizer splits texts \(`tokenizer\.ggml\.pre`\)"):
        from_metadata(metadata)
    more = 128_256 - len(metadata["tokenizer.ggml.tokens"])
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], *(f"more {number}" for number in range(more))]
    metadata["tokenizer.ggml.token_type"] = [*metadata["tokenizer.ggml.token_type"].tolist(), *[1] * more]
    tokenizer = from_metadata(metadata)
    assert tokenizer.encode("hello", add_bos=True)[0] == tokenizer.special.bos_id
    named = from_metadata({**metadata, "tokenizer.ggml.pre": "llama-bpe"})
    assert tokenizer.encode(TORTURE) == named.encode(TORTURE)


@pytest.mark.data
@pytest.mark.parametrize("model", ["smollm2_gguf", "qwen_coder_gguf"])
def test_ids_of_real_models_equal_openvino_genais_own_reader(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """GenAI's converter is independent of ours, and its ids equal llama.cpp's."""
    import openvino_genai

    path = request.getfixturevalue(model)
    theirs = openvino_genai.Tokenizer(str(metadata_only(path, tmp_path / "metadata.gguf")))
    ours = of(path)
    text = TORTURE.replace("é", "e")
    for line in [text, *text.splitlines(keepends=True)]:
        assert ours.encode(line) == theirs.encode(line, add_special_tokens=False).input_ids.data[0].tolist(), line
    question = [{"role": "user", "content": "안녕?"}]
    assert ours.render((Message(role="user", content="안녕?"),)) == theirs.apply_chat_template(question, add_generation_prompt=True)


def metadata_only(source: Path, target: Path) -> Path:
    """The file's key-value part and no tensors: all that GenAI's tokenizer needs, and it reads the rest slowly."""
    file = GGUFFile(source)
    first = min(tensor.offset for tensor in file.tensors.values())
    head = source.read_bytes()[:first]
    end = head.index(next(iter(file.tensors)).encode()) - 8  # the first tensor's name, after its length
    target.write_bytes(head[:8] + bytes(8) + head[16:end] + bytes(64))
    return target


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> sentencepiece.SentencePieceProcessor:
    """A SentencePiece BPE model as Llama's: byte fallback, digits by themselves, a space before the text."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    texts = [Path(inspect.getfile(Tokenizer)).read_text(encoding="utf-8"), "안녕하세요 대한민국 " * 20, TORTURE]
    (folder / "text.txt").write_text("\n".join(texts), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "m"), vocab_size=900, model_type="bpe", byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
        character_coverage=0.99, user_defined_symbols=["<|im_start|>"],
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "m.model"))


def facts_of_pieces(pieces: sentencepiece.SentencePieceProcessor, *, arch: str = "llama", **more: object) -> dict[str, Any]:
    """What llama.cpp's converter writes into a GGUF for such a model."""
    ids = range(pieces.get_piece_size())
    kinds = [(pieces.is_unknown, 2), (pieces.is_control, 3), (pieces.is_unused, 5), (pieces.is_byte, 6)]
    names = {"<|im_start|>": 4}
    types = [next((kind for is_kind, kind in kinds if is_kind(at)), names.get(pieces.id_to_piece(at), 1)) for at in ids]
    facts = {
        "model": "llama",
        "tokens": [pieces.id_to_piece(at) for at in ids],
        "scores": [pieces.get_score(at) for at in ids],
        "token_type": types,
        "bos_token_id": pieces.bos_id(),
        "eos_token_id": pieces.eos_id(),
    }
    return {f"tokenizer.ggml.{name}": value for name, value in {**facts, **more}.items()} | {"general.architecture": arch}


def of_pieces(pieces: sentencepiece.SentencePieceProcessor, *, arch: str = "llama", **more: object) -> Tokenizer:
    return from_metadata(facts_of_pieces(pieces, arch=arch, **more))


def test_ids_of_a_sentencepiece_vocabulary_equal_sentencepieces_own(pieces: sentencepiece.SentencePieceProcessor) -> None:
    ours = of_pieces(pieces)
    for text in [TORTURE, *TORTURE.splitlines(), "def from_metadata(metadata):", " leading", "a", "日本", "x" * 50]:
        assert ours.encode(text) == pieces.encode(text), text
        assert ours.decode(ours.encode(text)) == text


def test_a_sentencepiece_text_begins_with_its_own_token_where_the_model_expects_it(
    pieces: sentencepiece.SentencePieceProcessor,
) -> None:
    assert of_pieces(pieces).encode("hello", add_bos=True)[0] == pieces.bos_id()
    assert of_pieces(pieces, add_bos_token=False).encode("hello", add_bos=True) == pieces.encode("hello")


@pytest.mark.parametrize("kind", ["smollm", "qwen2", "llama-bpe", "llama", "phi3"])
def test_many_texts_have_the_ids_that_each_has_by_itself(
    kind: str, pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once, or of so many characters at a time as holds two of the longest, or none."""
    is_pieces = kind in ("llama", "phi3")
    tokenizer = of_pieces(pieces, arch=kind) if is_pieces else of(write_tiny_gguf(tmp_path / "t.gguf", pre=kind))
    marks = "<s>\n<|im_start|>\nhello</s> \n"
    texts = [TORTURE, "", marks, *TORTURE.splitlines(), *(TORTURE[at:] for at in range(0, len(TORTURE), 7))]
    for add_bos in (False, True):
        alone = [tokenizer.encode(text, add_bos=add_bos) for text in texts]
        for size in (tokenizing.TEXTS_AT_ONCE, 2 * len(TORTURE), 1):
            monkeypatch.setattr(tokenizing, "TEXTS_AT_ONCE", size)
            assert list(tokenizer.encode_many(texts, add_bos=add_bos)) == alone
    assert list(tokenizer.encode_many([])) == []


@pytest.mark.parametrize("kind", ["smollm", "qwen2", "llama-bpe", "llama", "phi3"])
def test_prompts_cut_from_one_end_of_a_turn_to_the_next_have_the_ids_of_whole_ones(
    kind: str, pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path
) -> None:
    tokenizer = of_pieces(pieces, arch=kind) if kind in ("llama", "phi3") else of(write_tiny_gguf(tmp_path / "t.gguf", pre=kind))
    end = tokenizer.decode([tokenizer.special.eos_id], with_control=True)
    turns = ["", " ", "\n", "hello", "\u0301", "<|im_start|>", end[:2], end, *TORTURE.splitlines()]
    texts = ["".join(f"{turn}{end}" for turn in random.Random(at).choices(turns, k=5)) + turns[at % 8] for at in range(200)]
    for add_bos in (False, True):
        known: dict[str, list[int]] = {}
        assert tokenizer.encode_prompts(texts, known, add_bos=add_bos) == list(tokenizer.encode_many(texts, add_bos=add_bos))
        assert sum(map(len, known)) < sum(map(len, texts)) / 5
    assert tokenizer.encode_prompts([], {}) == []


@pytest.mark.parametrize(
    ("end", "more", "flags", "parts"),
    [
        ("</s>", ["<s>"], {"</s>": {"rstrip": True}}, ["a ", "</s>\nword", "</s>!"]),
        ("</s>", [" </"], {}, None),
        ("</s>", ["word</s>"], {}, None),
        ("</s>", ["</s>!"], {}, None),
        ("</s></", [], {}, None),
        ("</s>", [], {"</s>": {"lstrip": True}}, None),
        ("end", ["word"], {"word": {"single_word": True}}, None),
    ],
)
def test_a_prompt_is_cut_whole_where_another_token_may_hide_the_end_of_a_turn(
    end: str, more: list[str], flags: dict[str, dict[str, bool]], parts: list[str] | None
) -> None:
    tokens = ["<unk>", end, *more, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]
    facts = {"model": "llama", "tokens": tokens, "scores": [0.0] * len(tokens), "eos_token_id": 1, "add_bos_token": False}
    facts["token_type"] = [2, 3, *[3] * len(more), *[6] * 256, 1, 1, 1]
    tokenizer = from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()}, flags=flags)
    text, known = f"a {end}\nword{end}!", dict[str, list[int]]()
    assert tokenizer.encode_prompts([text], known) == [tokenizer.encode(text)]
    assert list(known) == (parts or [text])
    for letters in itertools.product(["a", " ", end, end[:2], end[2:], "word", "!"], repeat=4):
        text = "".join(letters)
        assert tokenizer.encode_prompts([text], {}) == [tokenizer.encode(text)], text


def test_the_marks_of_phi_3_take_the_lines_behind_them_away(pieces: sentencepiece.SentencePieceProcessor) -> None:
    """As its own tokenizer has it (`rstrip`), but for the token that begins a text."""
    begin, end, mark = (pieces.piece_to_id(piece) for piece in ("<s>", "</s>", "<|im_start|>"))
    text, hello = "<s>\n<|im_start|>\nhello</s>\n<|im_start|> \n", pieces.encode("hello")
    line = pieces.encode("\n")
    assert of_pieces(pieces, arch="phi3").encode(text) == [begin, *line, mark, *hello, end, mark]
    assert of_pieces(pieces).encode(text) == [begin, *line, mark, *pieces.encode("\nhello"), end, *line, mark, *pieces.encode(" \n")]


def test_sentencepiece_text_streams_with_its_spaces(pieces: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = of_pieces(pieces)
    stream = tokenizer.decode_stream()
    text = "return the tokenizer 한국 🙂 x"
    assert "".join(stream.push(token) for token in tokenizer.encode(text)) + stream.finish() == text


def pushed(tokenizer: Tokenizer, ids: list[int], before: list[int] | None = None, *, is_cut: bool = False) -> list[str]:
    stream = tokenizer.decode_stream(before or ())
    return [*(stream.push(token) for token in ids), stream.finish(is_cut=is_cut)]


def test_marks_of_turns_that_a_file_calls_words_are_marks(pieces: sentencepiece.SentencePieceProcessor) -> None:
    """As in Gemmas converted in early 2024; they were cut into letters."""
    marks = ["<start_of_turn>", "<end_of_turn>"]
    size = pieces.get_piece_size()
    names = [pieces.id_to_piece(at) for at in range(size)]
    types = [6 if pieces.is_byte(at) else 2 if pieces.is_unknown(at) else 3 if pieces.is_control(at) else 1 for at in range(size)]
    more = {"tokens": names + marks, "scores": [0.0] * (size + 2), "token_type": [*types, 1, 1], "add_space_prefix": False}
    tokenizer = of_pieces(pieces, **more)
    first, *middle, last = tokenizer.encode("<start_of_turn>user\nreturn<end_of_turn>")
    assert (first, last) == (size, size + 1)
    assert tokenizer.decode([first, *middle, last]) == "user\nreturn"
    assert size + 1 in tokenizer.special.stop_ids and size not in tokenizer.special.stop_ids


@pytest.mark.parametrize("before", ["x", "return the", "龍", "안녕 ", "龍龍龍龍 "])
def test_a_continuation_keeps_the_space_of_its_first_word(pieces: sentencepiece.SentencePieceProcessor, before: str) -> None:
    """Whatever the prompt ends with: a word, single bytes of a character, a space."""
    tokenizer = of_pieces(pieces)
    prompt, following = tokenizer.encode(before, add_bos=True), tokenizer.encode("the tokenizer")
    assert "".join(pushed(tokenizer, following)) == "the tokenizer"
    assert "".join(pushed(tokenizer, following, prompt)) == " the tokenizer"
    assert "".join(pushed(tokenizer, following, [pieces.bos_id()])) == "the tokenizer"


def test_bytes_that_are_no_text_are_shown_as_such_and_what_follows_is_whole(pieces: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = of_pieces(pieces)
    dragon, (the,), bad = tokenizer.encode("龍")[1:], tokenizer.encode("the"), pieces.piece_to_id("<0xFF>")
    assert len(dragon) == 3
    assert pushed(tokenizer, [*dragon, bad, the, *dragon]) == ["", "", "龍", "", "\ufffd the", "", "", "龍", ""]
    assert "".join(pushed(tokenizer, [*dragon, bad])) == "龍\ufffd"
    assert "".join(pushed(tokenizer, [the, *dragon[:2]])) == "the\ufffd\ufffd"
    assert "".join(pushed(tokenizer, [the, *dragon[:2]], is_cut=True)) == "the"
    assert "".join(pushed(tokenizer, [*dragon, bad, *dragon[:2]], is_cut=True)) == "龍\ufffd"


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_any_tokens_can_be_decoded_one_by_one(pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path, kind: str) -> None:
    tokenizer = of_pieces(pieces) if kind == "sentencepiece" else of(write_tiny_gguf(tmp_path / "t.gguf"))
    chance = random.Random(7)
    for _ in range(200):
        ids = [chance.randrange(250) for _ in range(12)]
        whole, text = tokenizer.decode(ids), "".join(pushed(tokenizer, ids))
        assert text == whole or "\ufffd" in whole
        assert text.startswith("".join(pushed(tokenizer, ids, is_cut=True)))


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_bytes_that_never_become_text_come_while_they_are_decoded(
    kind: str, pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path
) -> None:
    """No more is held, and decoded again at each token, than a character may have."""
    tokenizer = of_pieces(pieces) if kind == "sentencepiece" else of(write_tiny_gguf(tmp_path / "t.gguf"))
    at = {tokenizer.token_bytes(token): token for token in range(tokenizer.backend.get_vocab_size())}
    for begin, *rest in ([0xED], [0xFF], [0xFF, 0xED, 0x95]):
        ids = [at[bytes([byte])] for byte in (begin, *rest)] * 30
        found = pushed(tokenizer, ids)
        assert all(any(found[first : first + 6]) for first in range(len(ids) - 6))
        assert "".join(found) == tokenizer.decode(ids)
        assert tokenizer.decode(ids).startswith("".join(pushed(tokenizer, ids, is_cut=True)))
        dragon = [at[bytes([byte])] for byte in "龍".encode()]
        assert kind == "sentencepiece" or "".join(pushed(tokenizer, ids + dragon)).endswith("\ufffd龍")


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
def test_control_tokens_are_not_held(kind: str, pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path) -> None:
    tokenizer = of_pieces(pieces) if kind == "sentencepiece" else of(write_tiny_gguf(tmp_path / "t.gguf"))
    control, (word, *_) = tokenizer.special.eos_id, tokenizer.encode("the")
    at = {tokenizer.token_bytes(token): token for token in range(tokenizer.backend.get_vocab_size())}
    stream = tokenizer.decode_stream()
    pieces_of_text = [stream.push(token) for token in [control] * 50]
    assert not any(pieces_of_text) and not stream._ids
    assert "".join(pushed(tokenizer, [control, word, control, at[b"\xed"], control], is_cut=True)) == tokenizer.decode([word])


def test_a_vocabulary_without_a_score_for_each_piece_is_damaged(pieces: sentencepiece.SentencePieceProcessor) -> None:
    with pytest.raises(BadFileError, match="the file's tokenizer has no `scores` for each of its 900 tokens"):
        of_pieces(pieces, scores=[0.0])


def test_a_vocabulary_of_another_kind_is_refused(pieces: sentencepiece.SentencePieceProcessor) -> None:
    with pytest.raises(UnsupportedError, match="the tokenizer of this file is of the kind `bert`"):
        of_pieces(pieces, model="bert")
