"""Text <-> token ids, and conversations -> prompts, from what a GGUF file says of itself.

The work is done by Hugging Face's `tokenizers` and by `jinja2`; this module only hands them the file's vocabulary and template.
Not covered: vocabularies of other kinds (WordPiece, unigram), which are refused.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nomoat import hardware
from nomoat.engine import harmony, pre_tokenizers, rendering, templates, tool_calls
from nomoat.engine.imported import not_whole
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.records import Message, Request

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # `tokenizer.ggml.token_type`
LONG_TEXT = 50_000  # characters; takes some 50 ms
LONG_TEXTS = threading.Lock()  # they are cut one at a time: cutting one takes some 150 times its bytes
COUNTED_TEXT = 2**18  # characters; of up to so many the tokens are always counted
LETTERS_A_TOKEN = 16  # more than any language has on average
TEXTS_AT_ONCE = 2**20  # characters of texts that are cut together: bounds memory
MAX_TOKENS = 2**32  # `tokenizers` counts them in 32 bits
LONGEST_PIECE = 1000  # letters; cutting one takes time by its square, and the longest of real vocabularies have some dozens
SPACE = "▁"  # how SentencePiece writes a space
LONGEST_CHARACTER = 4  # bytes
BROKEN = "\ufffd"  # what stands for bytes that are no text, and for the beginning of a character
KEEPS_SPACES = ("<unk>", "<s>", "<|endoftext|>")  # of Phi-3's special tokens; the others take the spaces and lines behind them away
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>")
TURN_MARKS = (*TURN_ENDS, "<start_of_turn>")  # whatever a file says, no words; llama.cpp holds the ends so, too

COMPOSES = ("qwen2", "mpt")  # letters and their accents become one (NFC) before a text is split
WHOLE_WORDS_FIRST = ("llama-bpe", "llama3", "llama-v3", "falcon3", "tekken")  # a word that is a token needs no merges
BEGINS_TEXTS = WHOLE_WORDS_FIRST  # the same ones read a token before a text, unless the file says otherwise (as in llama-vocab.cpp)


def _renew_lock() -> None:
    """For a fork, which may find it held for ever: by a thread that is not there."""
    global LONG_TEXTS  # noqa: PLW0603 - all of this process cut with one
    LONG_TEXTS = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids that end or begin a text."""

    bos_id: int | None
    eos_id: int
    stop_ids: tuple[int, ...]
    add_bos: bool


class Tokenizer:
    """Encodes and decodes as the model's own tokenizer does, and renders conversations with the model's chat template."""

    def __init__(self, backend: Any, special: SpecialTokens, chat_template: str | None) -> None:
        self.backend = backend
        self.special = special
        self.chat_template = chat_template
        self.stops: tuple[str, ...] = ()  # texts that end an answer of a conversation
        self.render_lacks_bos = False  # a file's template writes the token that begins a text itself; the named ones do not

    def use_template(self, name: str) -> None:
        """Chat with the named template (see `templates`), whatever the file has. Raises UsageError for a name that is not known."""
        template = templates.named(name)
        self.chat_template, self.stops, self.render_lacks_bos = template.text, template.stops, True

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of a text; `add_bos` puts the token before it that the model expects, if it expects one.

        Raises UnsupportedError for a text that the tokenizer gives up on, as on many millions of spaces in a row.
        """
        if len(text) >= LONG_TEXT:  # lets other threads run meanwhile
            with LONG_TEXTS:
                cut = next(self.encode_many([text], add_bos=add_bos))
                hardware.give_back_freed_memory()
            return cut
        with _cut(text):
            ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return self._begun(ids) if add_bos else ids

    def is_beyond(self, text: str, tokens: int) -> bool:
        """Whether a text has more than so many tokens, as far as a part of it says so: then all of it need not be cut.

        That is so if its beginning has twice as many. What stands behind it may change its last tokens, not half of them.
        """
        part = max(COUNTED_TEXT, LETTERS_A_TOKEN * tokens)
        while part < len(text):
            beginning = text[:part].rstrip() if self._takes_spaces else text[:part]
            try:
                if len(self.encode(beginning)) > 2 * tokens:
                    return True
            except UnsupportedError:  # whoever cuts the whole says so of that
                return False
            part *= 4
        return False

    @functools.cached_property
    def _takes_spaces(self) -> bool:
        """Whether an added token takes the spaces before it, however many."""
        return any(token.lstrip for token in self.backend.get_added_tokens_decoder().values())

    def encode_many(self, texts: Sequence[str], *, add_bos: bool = False) -> Iterator[list[int]]:
        """As `encode`, of each text in order: several at once, one a core."""
        longest = max(texts, key=len, default="")
        step = max(1, TEXTS_AT_ONCE // max(1, len(longest)))
        for start in range(0, len(texts), step):
            with _cut(longest):  # without the tokens' places in the text, which take much of the time
                found = self.backend.encode_batch_fast(texts[start : start + step], add_special_tokens=False)
            yield from (self._begun(one.ids) if add_bos else one.ids for one in found)

    def encode_prompts(self, texts: Sequence[str], known: dict[str, list[int]], *, add_bos: bool = False) -> list[list[int]]:
        """As `encode`, of each text in order: what several have in common, as the prompts of a conversation do, is cut once.

        It is cut from the end of one turn to the next. `known`: ids of such parts; those of these texts come in, for a later call.
        """
        parts = [self._parts(text) for text in texts]
        new = [part for part in dict.fromkeys(itertools.chain.from_iterable(parts)) if part not in known]
        known.update(zip(new, self.encode_many(new), strict=True))
        found = (list(itertools.chain.from_iterable(map(known.__getitem__, each))) for each in parts)
        return [self._begun(ids) if add_bos else ids for ids in found]

    def _parts(self, text: str) -> list[str]:
        places = [0, *(found.start() for found in self._ends.finditer(text)), len(text)]
        return [text[start:stop] for start, stop in itertools.pairwise(places)]

    @functools.cached_property
    def _ends(self) -> re.Pattern[str]:
        """Finds those ends of turns before which any text may be taken apart without becoming other tokens.

        `tokenizers` looks for added tokens first, the leftmost and longest, and cuts what stands between two of them by itself. So
        that is before those which no other one can hide: no longer one begins with them, and their first letter is within none.
        There is no such place where a token is found, or takes spaces, by what stands before it.
        """
        added = [token for token in self.backend.get_added_tokens_decoder().values() if not token.normalized]
        texts, within = {token.content for token in added}, {letter for token in added for letter in token.content[1:]}
        ends = {text for at in self.special.stop_ids if (text := self._token_text(at)) in texts and text[0] not in within}
        ends -= {end for end in ends for text in texts if text != end and text.startswith(end)}
        if not ends or any(token.single_word or token.lstrip for token in added):
            return re.compile("(?!)")
        return re.compile("|".join(map(re.escape, sorted(ends))))

    def _begun(self, ids: list[int]) -> list[int]:
        """With the token before it that the model expects, if it expects one."""
        return [self.special.bos_id, *ids] if self.special.add_bos and self.special.bos_id is not None else ids

    def decode(self, ids: Sequence[int], *, with_control: bool = False) -> str:
        """The text of token ids; control tokens are left out, unless they are asked for.

        Raises UnsupportedError for tokens that the tokenizer gives up on.
        """
        with _answered(f"cannot make a text of {len(ids):,} tokens", "give fewer tokens, or another model"):
            return str(self.backend.decode(list(ids), skip_special_tokens=not with_control))

    @property
    def is_byte_level(self) -> bool:
        """Whether tokens are pieces of bytes, each written as a letter; in SentencePiece they are of letters, and some a byte."""
        from tokenizers import decoders

        return isinstance(self.backend.decoder, decoders.ByteLevel)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for, whole characters or not; nothing for a number that is no token."""
        token = name_of(self.backend, token_id) or ""
        if self.is_byte_level:
            letters = _letters_of_bytes()
            is_literal = not letters.keys() >= set(token)  # as added tokens may be, and as the decoder takes them
            return token.encode() if is_literal else b"".join(map(letters.__getitem__, token))
        byte = re.fullmatch("<0x([0-9A-F]{2})>", token)
        return bytes.fromhex(byte[1]) if byte else token.replace(SPACE, " ").encode()

    def render(self, messages: Sequence[Message], variables: Mapping[str, Any] | None = None, tools: Sequence[str] = ()) -> str:
        """The prompt of a conversation, up to where the assistant's answer begins. `variables`: what the template is told besides;
        `tools`: see `Request`.

        Raises UnsupportedError if the model has no chat template, or if its template refuses the conversation or fails.
        """
        if self.chat_template is None:
            raise UnsupportedError(
                "this model has no chat template: it completes texts, it does not chat",
                hint="use `run --raw` (in Python: `Request(prompt=…)`) or `POST /v1/completions`, or "
                "`--template NAME` (in Python: `template`) for the one it was tuned with: "
                + templates.choice(self.backend.token_to_id),
            )
        begin, end = self._token_text(self.special.bos_id), self._token_text(self.special.eos_id)
        return render(self.chat_template, messages, variables, tools, bos_token=begin, eos_token=end)

    def prompt_text(self, request: Request, *, is_scored: bool = False) -> tuple[str, bool]:
        """A request's prompt, template included, and whether the token that begins a text is still to be put before it.

        `is_scored`: it is asked how likely continuations are, as what is said.
        """
        if request.prompt is not None:
            return request.prompt, True
        text = self.render(request.messages, rendering.variables_for(self.chat_template or "", request), request.tools)
        if harmony.is_spoken(self.chat_template):
            begun = harmony.start(request, text, is_scored=is_scored) + request.answer_start
        else:
            begun = tool_calls.start(self.chat_template or "") if request.must_call else request.answer_start
        return text + begun, self.render_lacks_bos

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """See `tool_calls.notes`."""
        return tool_calls.notes(self.chat_template or "", request)

    def prompt_ids(self, request: Request) -> list[int]:
        """Token ids of a request's prompt, template included."""
        text, add_bos = self.prompt_text(request)
        return self.encode(text, add_bos=add_bos)

    def answer_stream(self, request: Request, prompt: Sequence[int]) -> DecodeStream | harmony.ChannelStream:
        """Decodes the answer to a request with this prompt token by token."""
        if request.messages and harmony.is_spoken(self.chat_template):
            return harmony.ChannelStream(self, prompt)
        return self.decode_stream(() if request.messages and not request.answer_start else prompt)

    def decode_stream(self, before: Sequence[int] = ()) -> DecodeStream:
        """Decodes an answer token by token. `before`: the tokens of the text that it goes on with, if it does not begin one."""
        return DecodeStream(self, before)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, as Hugging Face names them."""
        self.backend.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self._token_text(self.special.bos_id) or None,
            "eos_token": self._token_text(self.special.eos_id),
            "nomoat": {
                "bos_id": self.special.bos_id,
                "eos_id": self.special.eos_id,
                "stop_ids": list(self.special.stop_ids),
                "add_bos": self.special.add_bos,
            },
            "chat_template": self.chat_template,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")

    def _token_text(self, token_id: int | None) -> str:
        return "" if token_id is None else str(self.backend.id_to_token(token_id))


def render(
    template: str, messages: Sequence[Message], variables: Mapping[str, Any] | None = None, tools: Sequence[str] = (), *,
    bos_token: str = "", eos_token: str = "",
) -> str:  # fmt: skip
    """See `Tokenizer.render`, of a chat template without its tokenizer."""
    rows, told = tool_calls.for_template(template, messages, tools)
    return rendering.render(
        template,
        **(variables or {}),
        messages=rows,
        tools=told,
        documents=None,
        add_generation_prompt=True,
        bos_token=bos_token,
        eos_token=eos_token,
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what `tokenizers` raises over a bad file into BadFileError. Its errors have no types, and its panics are no `Exception`."""
    try:
        yield
    except BaseException as exc:
        if not isinstance(exc, Exception) and not _is_panic(exc):
            raise
        raise BadFileError(f"{what}: {exc}", hint="download it again, or try another file of this model") from exc


@contextmanager
def _answered(what: str, hint: str) -> Iterator[None]:
    """Turn what `tokenizers` raises over a text, or over tokens, into UnsupportedError."""
    try:
        yield
    except BaseException as exc:
        if type(exc) is not Exception and not _is_panic(exc):
            raise
        raise UnsupportedError(f"the model's tokenizer {what}: {exc}", hint=hint) from exc


def _cut(text: str) -> AbstractContextManager[None]:
    return _answered(f"cannot cut a text of {len(text):,} characters into tokens", "give a shorter text, or another model")


def _is_panic(exc: BaseException) -> bool:
    """Rust's, as pyo3 hands it on: its class can be imported from nowhere."""
    return type(exc).__name__ == "PanicException"


def name_of(backend: Any, token_id: int) -> str | None:
    """A token's text in a vocabulary; None for a number that is no token."""
    return backend.id_to_token(token_id) if 0 <= token_id < MAX_TOKENS else None


@functools.cache
def _letters_of_bytes() -> dict[str, bytes]:
    """How byte-level vocabularies write bytes: most as the letter of that number, the others, in their order, from 256 on."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    others = (byte for byte in range(256) if chr(byte) not in letters)
    return {letter: bytes([ord(letter) if ord(letter) < 256 else next(others)]) for letter in letters}


class DecodeStream:
    """Gives out text as soon as it is certain: never half a Korean syllable or half an emoji. Bytes that are no text become `BROKEN`.

    A token's text depends on what stands before it: SentencePiece's first word of a text loses its space. So tokens are decoded behind
    those whose text was given out last. `tokenizers` has such a stream, too; it fails for good at bytes that are no text.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._given = self._end_of(before)
        self._ids: list[int] = []  # whose text is not given out yet

    def push(self, token_id: int) -> str:
        """The text that this token makes certain; may be empty."""
        self._ids.append(token_id)
        count, text = len(self._ids), self._text(self._ids)
        if not text or text.endswith(BROKEN):
            count, text = self._certain(text)
        if count:
            self._given, self._ids = self._ids[:count], self._ids[count:]
        return text

    def finish(self, *, is_cut: bool = False) -> str:
        """What was still held back: bytes that never became a character. Where the answer was cut, without the beginning of one."""
        text = self._text(self._ids)
        if not (is_cut and text.endswith(BROKEN)):
            return text
        begun = self._num_begun()  # one `BROKEN` stands for it, or one for each byte
        return text.removesuffix(BROKEN * (min(begun, 1) if self._tokenizer.is_byte_level else begun))

    def _certain(self, text: str) -> tuple[int, str]:
        """Of the tokens that are held, whose `text` may go on in the newest ones: how many it cannot, and their text.

        Where none of them is text no more are held than a character may have, and all are decoded again at each token.
        """
        if self._leaves_nothing(self._ids[-1]):
            self._ids.pop()
        if len(self._ids) <= LONGEST_CHARACTER:
            return 0, ""
        most = len(self._ids) - self._num_begun()  # a token has a byte or more
        parts = ((count, self._text(self._ids[:count])) for count in range(most, most - LONGEST_CHARACTER, -1))
        return next(((count, part) for count, part in parts if text.startswith(part)), (0, ""))

    def _leaves_nothing(self, token_id: int) -> bool:
        """Of control tokens and numbers that are no token; a space may leave nothing only where it begins a text."""
        return not self._tokenizer.decode([token_id]) and not self._tokenizer.token_bytes(token_id).isspace()

    def _num_begun(self) -> int:
        """Bytes at the end that are the beginning of a character."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(self._tokenizer.token_bytes(token_id) for token_id in self._ids))
        begun, _ = decoder.getstate()
        return len(begun)

    def _text(self, ids: Sequence[int]) -> str:
        before, whole = self._tokenizer.decode(self._given), self._tokenizer.decode([*self._given, *ids])
        # Bytes that are no text break the whole run of single bytes they stand in, what was given out included.
        return whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(ids)

    def _end_of(self, ids: Sequence[int]) -> list[int]:
        """The last of these tokens, so few as are a text of whole characters."""
        size = 1
        while size < len(ids) and ((text := self._tokenizer.decode(ids[-size:])) == "" or BROKEN in text):
            size *= 2
        return list(ids[-size:])


def load(folder: Path) -> Tokenizer:
    """A tokenizer that `Tokenizer.save` wrote. Raises BadFileError for what is damaged."""
    from tokenizers import Tokenizer as Backend

    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        special = SpecialTokens(**{**config["nomoat"], "stop_ids": tuple(config["nomoat"]["stop_ids"])})
        return Tokenizer(Backend.from_file(str(folder / "tokenizer.json")), special, config.get("chat_template"))
    except MemoryError:
        raise
    except Exception as exc:  # `tokenizers` has no error of its own
        raise not_whole(folder, exc) from exc


def from_metadata(
    metadata: dict[str, Any],
    *,
    flags: Mapping[str, Mapping[str, bool]] | None = None,
    space_first: bool = False,
    space_once: bool = False,
) -> Tokenizer:
    """The tokenizer a GGUF's metadata describes. Raises UnsupportedError for kinds not known, BadFileError for damage.

    Folders say more. `flags`: how special and added tokens are found in texts, as `tokenizers.AddedToken` has it; those not there have
    none. `space_first`: a space is put before texts of byte-level vocabularies. `space_once`: SentencePiece's is put where a text
    begins, if it begins with none, and not behind special tokens, too.
    """
    _require_kinds(metadata)
    tokens, eos_id = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.eos_token_id")
    if not isinstance(tokens, list) or not isinstance(eos_id, int) or not 0 <= eos_id < len(tokens):
        raise BadFileError("the file holds no whole tokenizer (tokens, end token)", hint="try another file of this model")
    types = _types(metadata, tokens)
    vocabulary = {token: at for at, token in enumerate(tokens[: _num_used(types)])}
    kind, pre, arch = metadata.get("tokenizer.ggml.model"), "", str(metadata.get("general.architecture"))
    if kind == "gpt2":
        pre = metadata.get("tokenizer.ggml.pre") or pre_tokenizers.unsaid(arch, len(tokens))
        backend = _byte_level_bpe(vocabulary, metadata.get("tokenizer.ggml.merges"), pre, space_first=space_first)
    elif kind == "llama":
        scores = _numbers(metadata, "scores", len(tokens))
        backend = _sentencepiece_bpe(vocabulary, tokens, scores, types)
        _set_sentencepiece_spaces(backend, metadata, once=space_once)
    else:
        raise UnsupportedError(
            f"the tokenizer of this file is of the kind `{kind}`, which nomoat cannot read yet",
            hint="byte-level BPE (SmolLM2, Qwen2.5, Llama 3) and SentencePiece BPE (Llama 1 and 2, OpenLLaMA) work",
        )
    if (arch, kind) == ("phi3", "llama"):
        flags = {token: {"rstrip": token not in KEEPS_SPACES} for token in tokens}
    _add_special_tokens(backend, tokens, types, flags or {})
    bos_id = metadata.get("tokenizer.ggml.bos_token_id")
    special = SpecialTokens(
        bos_id=bos_id if bos_id is not None and 0 <= bos_id < len(tokens) else None,  # some files write 2^32 - 1 for none
        eos_id=eos_id,
        stop_ids=stop_ids([eos_id, *_turn_ends(metadata, len(tokens))], backend.token_to_id),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or pre in BEGINS_TEXTS)),
    )
    return Tokenizer(backend, special, metadata.get("tokenizer.chat_template"))


def _require_kinds(metadata: dict[str, Any]) -> None:
    """Raises BadFileError for a value of the tokenizer that is of another kind than the format gives it."""
    checks: dict[str, Callable[[Any], bool]] = {
        "tokens": _are_texts,
        "merges": _are_texts,
        "token_type": _are_numbers,
        "scores": _are_numbers,
        "bos_token_id": lambda value: type(value) is int,
        "eos_token_id": lambda value: type(value) is int,
        "eot_token_id": lambda value: type(value) is int,
        "eom_token_id": lambda value: type(value) is int,
        "add_bos_token": lambda value: isinstance(value, bool),
        "add_space_prefix": lambda value: isinstance(value, bool),
        "remove_extra_whitespaces": lambda value: isinstance(value, bool),
        "precompiled_charsmap": lambda value: isinstance(value, bytes) or (isinstance(value, np.ndarray) and value.itemsize == 1),
        "model": lambda value: isinstance(value, str),
        "pre": lambda value: isinstance(value, str),
    }
    found = {f"tokenizer.ggml.{name}": check for name, check in checks.items()}
    found["tokenizer.chat_template"] = lambda value: isinstance(value, str)
    for key, check in found.items():
        if key in metadata and not check(metadata[key]):
            raise BadFileError(f"the file's `{key}` is not what it should be", hint="download it again, or try another file")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _are_numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(number, int | float) and math.isfinite(number) for number in value)
    return isinstance(value, np.ndarray) and bool(np.isfinite(value.astype(np.float64)).all())


def stop_ids(eos_ids: Sequence[int], id_of: Callable[[str], int | None]) -> tuple[int, ...]:
    """Tokens after which an answer is over: a model may end its turn with another token than its text."""
    ends = {found for end in (*TURN_ENDS, *harmony.ENDS) if (found := id_of(end)) is not None}.union(eos_ids)
    if all(id_of(end) is not None for end in harmony.ENDS):
        ends -= {id_of(harmony.END)}  # another message follows, as llama.cpp has it (llama-vocab.cpp)
    return tuple(sorted(ends))


def _turn_ends(metadata: dict[str, Any], num_tokens: int) -> list[int]:
    """The tokens that a file says end a turn or a message."""
    said = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))
    return [token_id for token_id in said if token_id is not None and 0 <= token_id < num_tokens]


def _types(metadata: dict[str, Any], tokens: list[str]) -> list[float]:
    """What each token is. Converters before mid-2024 called Gemma's marks of turns ordinary pieces, which no merges lead to.

    What begins or ends texts is not unused, whatever a file says.
    """
    types = _numbers(metadata, "token_type", len(tokens))
    ends = {metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "eom")}
    for at, token in enumerate(tokens):
        if (types[at] == NORMAL and token in TURN_MARKS) or (types[at] == UNUSED and at in ends):
            types[at] = CONTROL
    return types


def _num_used(types: Sequence[float]) -> int:
    """How many tokens there are before those that only fill up a matrix's rows, as Qwen2.5's `[PAD151886]` does: one of these is no
    text, as in llama.cpp. Unused ones between others stay, as llguidance counts on numbers in a row."""
    return next((at for at in range(len(types), 0, -1) if types[at - 1] != UNUSED), 0)


def _numbers(metadata: dict[str, Any], name: str, count: int) -> list[float]:
    """A list with a number for each token."""
    values = metadata.get(f"tokenizer.ggml.{name}")
    if values is None or len(values) != count:
        raise BadFileError(
            f"the file's tokenizer has no `{name}` for each of its {count:,} tokens", hint="try another file of this model"
        )
    return list(values)


def _byte_level_bpe(vocabulary: dict[str, int], merges: Any, pre: str, *, space_first: bool) -> Any:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers

    if not isinstance(merges, list):
        raise BadFileError("the file holds no whole tokenizer (merges)", hint="try another file of this model")

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    with translated("the file's vocabulary and merges do not fit together"):
        backend = Backend(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=pre in WHOLE_WORDS_FIRST))
    backend.pre_tokenizer = pre_tokenizers.pre_tokenizer(pre, space_first=space_first)
    backend.decoder = decoders.ByteLevel()
    if pre in COMPOSES:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece_bpe(vocabulary: dict[str, int], tokens: list[str], scores: list[float], types: list[float]) -> Any:
    """SentencePiece's BPE as `tokenizers` can do it: every way to put a piece together is a merge, the best-scored pieces first.

    The same construction as `transformers` makes for Llama (convert_slow_tokenizer.py, generate_merges).
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    pieces = {token for token, kind in zip(tokens, types, strict=True) if kind in (NORMAL, USER_DEFINED)}
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for token, score, kind in zip(tokens, scores, types, strict=True):
        if kind == NORMAL:
            if len(token) > LONGEST_PIECE:
                raise BadFileError(f"the file's tokenizer has a piece of {len(token):,} letters", hint="download it again")
            pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
            merges += [(-score, vocabulary[a], vocabulary[b], (a, b)) for a, b in pairs if a in pieces and b in pieces]
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    return Backend(
        models.BPE(
            vocab=vocabulary, merges=[pair for *_, pair in sorted(merges)], unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )


def _set_sentencepiece_spaces(backend: Any, metadata: dict[str, Any], *, once: bool) -> None:
    """What becomes of a text before it is cut into pieces, and of pieces when they become a text again."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[Any] = []
    charsmap = bytes(metadata.get("tokenizer.ggml.precompiled_charsmap", b""))
    if charsmap:
        with translated("the file's table of letters cannot be read"):
            steps.append(normalizers.Precompiled(charsmap))
    if metadata.get("tokenizer.ggml.remove_extra_whitespaces"):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if prefix and once:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    elif prefix:
        steps.append(normalizers.Prepend(SPACE))
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    undo = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*undo, decoders.Strip(" ", 1, 0)] if prefix else undo)


def _add_special_tokens(backend: Any, tokens: list[str], types: list[float], flags: Mapping[str, Mapping[str, bool]]) -> None:
    from tokenizers import AddedToken

    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [
            AddedToken(token, special=special, normalized=False, **flags.get(token, {}))
            for token, t in zip(tokens, types, strict=True)
            if t == kind
        ]
        if special:
            backend.add_special_tokens(added)
        else:
            backend.add_tokens(added)
