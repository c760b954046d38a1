"""Text <-> token ids, and conversations -> prompts, as the model's own tokenizer and chat template do it.

The work is done by Hugging Face's `tokenizers` and by `jinja2`. `gguf_tokenizer` and `folder_tokenizer` make one of a file.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nomoat import hardware
from nomoat.engine import harmony, infill, rendering, templates, tool_calls
from nomoat.engine.decode_stream import DecodeStream
from nomoat.engine.imported import not_whole
from nomoat.errors import NO_TEMPLATE, BadFileError, NoTemplateError, UnsupportedError
from nomoat.records import Message, Request

LONG_TEXT = 50_000  # characters; takes some 50 ms
LONG_TEXTS = threading.Lock()  # they are cut one at a time: cutting one takes some 150 times its bytes
COUNTED_TEXT = 2**18  # characters; of up to so many the tokens are always counted
LETTERS_A_TOKEN = 16  # more than any language has on average
TEXTS_AT_ONCE = 2**20  # characters of texts that are cut together: bounds memory
MAX_TOKENS = 2**32  # `tokenizers` counts them in 32 bits
SPACE = "▁"  # how SentencePiece writes a space


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
    begin_ids: tuple[int, ...]  # what the model expects before a text: the one that begins it, several (GLM-4), or none
    end_ids: tuple[int, ...] = ()  # and behind one that becomes a vector

    @property
    def add_bos(self) -> bool:
        """Whether that is the one that begins a text."""
        return self.begin_ids == (self.bos_id,)


class Tokenizer:
    """Encodes and decodes as the model's own tokenizer does, and renders conversations with the model's chat template."""

    def __init__(self, backend: Any, special: SpecialTokens, chat_template: str | None, *, tool_template: str | None = None) -> None:
        """`tool_template`: the model's own for conversations with functions, where that is another one."""
        self.backend = backend
        self.special = special
        self.chat_template, self._tool_template = templates.of_file(chat_template, tool_template)
        self.stops: tuple[str, ...] = ()  # texts that end an answer of a conversation
        self.said_marks: tuple[int, ...] = ()  # see `infill.find`
        self.render_lacks_bos = False  # a file's template writes the token that begins a text itself; the named ones do not

    def use_template(self, chosen: str | templates.Template) -> None:
        """Chat with this template, or the named one (see `templates`), whatever the file has. Raises UsageError for a name that is
        not known."""
        template = templates.named(chosen) if isinstance(chosen, str) else chosen
        self.chat_template, self.stops, self.render_lacks_bos = template.text, template.stops, not template.writes_bos
        self._tool_template = template.with_tools

    @property
    def templates(self) -> dict[str, str]:
        """The chat template, and the one of conversations with functions where that is another one, as `transformers` names them."""
        found = {"default": self.chat_template, "tool_use": self._tool_template}
        return {name: text for name, text in found.items() if text is not None}

    def template_for(self, tools: Sequence[str]) -> str | None:
        """The chat template of a conversation with these functions, as `transformers` chooses it.

        But for one whose calls would stay text, as those of the first Command Rs: see `tool_calls.reads_calls_of`.
        """
        chosen = self._tool_template
        return chosen if tools and chosen is not None and tool_calls.reads_calls_of(chosen) else self.chat_template

    def encode(self, text: str, *, add_bos: bool = False) -> list[int]:
        """Token ids of a text; `add_bos` puts the tokens before it that the model expects, if it expects any.

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

    def num_among(self, rows: int) -> int:
        """Of the first `rows` numbers those up to the last one that is a token: a model may have more rows than tokens."""
        return next((at for at in range(rows, 0, -1) if name_of(self.backend, at - 1) is not None), 0)

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
        """With the tokens before it that the model expects."""
        return [*self.special.begin_ids, *ids]

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

        Raises NoTemplateError if the model has no chat template, UnsupportedError if its template refuses the conversation or fails.
        """
        template = self.template_for(tools)
        if template is None:
            raise NoTemplateError(
                NO_TEMPLATE,
                hint="use `run --raw` (in Python: `Request(prompt=…)`) or `POST /v1/completions`, or "
                "`--template NAME` (in Python: `template`) for the one it was tuned with: "
                + templates.choice(self.backend.token_to_id),
            )
        begin, end = self._token_text(self.special.bos_id), self._token_text(self.special.eos_id)
        return render(template, messages, variables, tools, bos_token=begin, eos_token=end)

    def prompt_text(self, request: Request, *, is_scored: bool = False) -> tuple[str, bool]:
        """A request's prompt, template included, and whether the token that begins a text is still to be put before it.

        `is_scored`: it is asked how likely continuations are, as what is said.
        """
        if request.prompt is not None:
            return request.prompt, True
        template = self.template_for(request.tools) or ""
        text = self.render(request.messages, rendering.variables_for(template, request), request.tools)
        if harmony.is_spoken(template):
            begun = harmony.start(request, text, is_scored=is_scored) + request.answer_start
        else:
            begun = tool_calls.start(template) if request.must_call else request.answer_start
        return text + begun, self.render_lacks_bos

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """See `tool_calls.notes`."""
        return tool_calls.notes(self.template_for(request.tools) or "", request)

    def prompt_ids(self, request: Request) -> list[int]:
        """Token ids of a request's prompt, template included."""
        if request.suffix:
            return self.infill_ids(request.prompt or "", request.suffix)
        text, add_bos = self.prompt_text(request)
        return self.encode(text, add_bos=add_bos)

    @functools.cached_property
    def marks(self) -> infill.Marks | None:
        """The tokens with which the model fills in the middle of a text, if its vocabulary has any."""
        return infill.find(self.backend, self.said_marks)

    def infill_ids(self, before: str, behind: str) -> list[int]:
        """Token ids that ask for what stands between two texts. Names of special tokens in these are read as letters.

        Raises UnsupportedError where the model has no tokens for it.
        """
        if self.marks is None:
            raise UnsupportedError(
                "this model has no tokens to fill in the middle of a text",
                hint="leave `suffix` out, or ask a model of code that has them, such as Qwen2.5-Coder",
            )
        sides = (self._as_written.encode(before) if before else [], self._going_on(behind))
        return self._begun(self.marks.around(*sides))

    @functools.cached_property
    def _as_written(self) -> Tokenizer:
        """This one for texts in which no special token stands, nor one that ends an answer or a middle."""
        plain = copy.copy(self)
        plain.backend = infill.as_written(self.backend, self.stop_ids(is_middle=True))
        return plain

    def _going_on(self, text: str) -> list[int]:
        """Token ids of a text, as written, that begins none: without the space that SentencePiece puts before one."""
        letter = self._as_written.encode(infill.A_LETTER)
        if not letter or not str(name_of(self.backend, letter[0])).startswith(SPACE):
            return self._as_written.encode(text)
        return self._as_written.encode(infill.A_LETTER + text)[len(letter) :]

    def stop_ids(self, *, is_middle: bool) -> tuple[int, ...]:
        """Tokens after which an answer is over, or the middle of a text."""
        more = self.marks.ends if is_middle and self.marks is not None else ()
        return (*self.special.stop_ids, *more)

    def answer_stream(self, request: Request, prompt: Sequence[int]) -> DecodeStream | harmony.ChannelStream:
        """Decodes the answer to a request with this prompt token by token."""
        if request.messages and harmony.is_spoken(self.template_for(request.tools)):
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
            "nomoat": asdict(self.special),
            "chat_template": self.chat_template,
            "tool_template": self._tool_template,
        }
        if self.said_marks:
            config["infill"] = list(self.said_marks)
        (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8", newline="\n")

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


def load(folder: Path) -> Tokenizer:
    """A tokenizer that `Tokenizer.save` wrote. Raises BadFileError for what is damaged."""
    from tokenizers import Tokenizer as Backend

    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        backend, own = Backend.from_file(str(folder / "tokenizer.json")), config.get("chat_template")
        hardware.give_back_freed_memory()  # as much again as a large vocabulary takes
        special: dict[str, Any] = {name: tuple(told) if isinstance(told, list) else told for name, told in config["nomoat"].items()}
        tokenizer = Tokenizer(backend, SpecialTokens(**special), own, tool_template=config.get("tool_template"))
        tokenizer.said_marks = tuple(config.get("infill", ()))  # most files name none
        return tokenizer
    except MemoryError:
        raise
    except Exception as exc:  # `tokenizers` has no error of its own
        raise not_whole(folder, exc) from exc
