"""The tokenizer of a Hugging Face folder: `tokenizer.json`, else `tokenizer.model`, else `vocab.json` and `merges.txt`."""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nomoat.engine import gguf_tokenizer, pre_tokenizers, templates
from nomoat.engine.gguf_tokenizer import CONTROL, NORMAL, USER_DEFINED
from nomoat.engine.tokenizer import SpecialTokens, Tokenizer, name_of, translated
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.hub_folder import CHAT_TEMPLATE, SPECIAL_TOKENS, TOOL_TEMPLATE, read_object, require_fetched

UNIGRAM = 1  # SentencePiece's number for it
VARINT_BYTES = 10  # at most: 64 bits, 7 a byte
PRE_TOKENIZERS_OF_CLASSES = {"Qwen2Tokenizer": "qwen2", "GPTNeoXTokenizer": "mpt"}  # `tokenizer_class` -> as in `pre_tokenizers`
ENDS, FILLERS = ("bos_token", "eos_token"), ("unk_token", "pad_token")
SPECIAL = (*ENDS, *FILLERS)
OTHER_SPECIAL = ("additional_special_tokens", "extra_special_tokens")  # a list; of `transformers` 5 also by name
FLAGS = ("lstrip", "rstrip", "single_word")
TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\n")  # a token in base64, and its number
HIGHEST_NUMBER = 1 << 24  # of a token: `tokenizers` takes memory for each number up to it, some 250,000 in the largest vocabularies


def read(folder: Path) -> Tokenizer:
    """The tokenizer with its special tokens and chat template. Raises BadFileError, UnsupportedError."""
    said, settings = _said(folder), _settings(folder)
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder, said, settings)
    if (folder / "tokenizer.model").is_file():
        facts = _sentencepiece_facts(folder / "tokenizer.model")
        if settings.get("add_prefix_space") is False and settings.get("legacy") is False:
            # with `legacy` true or unsaid `transformers` 4 puts the space all the same, and 5 in some families
            facts["add_space_prefix"] = False
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        facts = {**_bpe_facts(folder), "pre": _pre_tokenizer(folder, said, settings)}
    else:
        raise BadFileError(
            f"`{folder}` holds no tokenizer", hint="it needs `tokenizer.json`, `tokenizer.model`, or `vocab.json` and `merges.txt`"
        )
    added = _json(folder / "added_tokens.json")
    if not all(type(at) is int for at in added.values()):
        raise BadFileError(f"`{folder / 'added_tokens.json'}` does not number its tokens", hint="download it again")
    _add_tokens(facts, added, settings)
    places = {token: at for at, token in reversed(list(enumerate(facts["tokens"])))}
    numbers = range(len(facts["tokens"]))
    facts["bos_token_id"], (facts["eos_token_id"], *more) = _ends(places.get, numbers.__contains__, said, settings)
    if facts["bos_token_id"] is None:
        facts["add_bos_token"] = False
    facts |= {name: settings[name] for name in ("add_bos_token", "add_eos_token") if settings.get(name) is not None}
    metadata = {f"tokenizer.ggml.{name}": value for name, value in facts.items()}
    metadata |= zip(gguf_tokenizer.TEMPLATES, _templates(folder, settings), strict=True)
    made = gguf_tokenizer.from_metadata(
        {key: value for key, value in metadata.items() if value is not None},
        flags=_flags(settings),
        space_first=bool(settings.get("add_prefix_space")),
        space_once=settings.get("legacy") is False,
    )
    made.special = replace(made.special, stop_ids=tuple(sorted({*made.special.stop_ids, *more})))
    return made


def chat_templates(folder: Path) -> tuple[str | None, str | None]:
    """See `_templates`. What else the settings say is not looked at: an adapter's do not count. Raises BadFileError.

    They are read again where a file has changed: a trainer's settings take long, and a server is asked for each listing of its models.
    """
    return _chat_templates(folder, *(_state(folder / name) for name in ("tokenizer_config.json", CHAT_TEMPLATE, TOOL_TEMPLATE)))


@functools.lru_cache(1024)
def _chat_templates(folder: Path, *states: object) -> tuple[str | None, str | None]:
    settings = _json(folder / "tokenizer_config.json")
    _require_template(folder, settings)
    return _templates(folder, settings)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells that a file has changed; None where it is not there."""
    with suppress(OSError):
        stat = path.stat()
        return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return None


def reads_special_tokens(folder: Path) -> bool:
    """Whether anything is read of what an older `transformers` wrote in `special_tokens_map.json`."""
    with suppress(BadFileError):  # which whoever reads the tokenizer is told
        return _counts_older(_json(folder / "tokenizer_config.json"))
    return True


def _from_json(folder: Path, said: dict[str, Any], settings: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    path = folder / "tokenizer.json"
    require_fetched(path)
    with translated(f"`{path}` is not a whole tokenizer"):
        backend = Backend.from_file(str(path))
    numbers = backend.get_vocab(with_added_tokens=False).values()
    if len(set(numbers)) != len(numbers):
        raise BadFileError(f"`{path}` gives several tokens the same number", hint="download it again")
    if (highest := max(backend.get_vocab().values(), default=-1)) > HIGHEST_NUMBER:
        raise BadFileError(f"`{path}` gives a token the number {highest:,}, and has {len(numbers):,}", hint="download it again")
    backend.no_truncation()
    backend.no_padding()
    missing = _missing(backend, highest + 1, said, settings)
    with translated(f"`{path}` cannot be used"):
        backend.add_tokens(missing)
        encoded = backend.encode("a")
    marked = list(zip(encoded.ids, encoded.special_tokens_mask, strict=True))
    begins = _leading_special(marked)
    ends = _leading_special(marked[len(begins) :][::-1])[::-1]

    bos_id, eos_ids = _ends(backend.token_to_id, lambda number: name_of(backend, number) is not None, said, settings)
    special = SpecialTokens(
        bos_id=bos_id,
        eos_id=eos_ids[0],
        stop_ids=gguf_tokenizer.stop_ids(eos_ids, backend.token_to_id),
        begin_ids=begins,
        end_ids=ends,
    )
    own, with_tools = _templates(folder, settings)
    return Tokenizer(backend, special, own, tool_template=with_tools)


def _leading_special(marked: list[tuple[int, int]]) -> tuple[int, ...]:
    """The special tokens that come first, of tokens each with whether it is one."""
    return tuple(token_id for token_id, _ in itertools.takewhile(lambda pair: pair[1], marked))


def _ends(
    id_of: Callable[[str], int | None], is_token: Callable[[int], bool], said: dict[str, Any], settings: dict[str, Any]
) -> tuple[int | None, list[int]]:
    """The token that begins a text, if there is one, and those that end one. What is no token of this vocabulary is left out.

    The tokenizer's own comes first: it ended the texts that were learned, and templates write it. Others may only stop an answer.
    """

    def ids(name: str) -> list[int]:
        value, text = said.get(f"{name}_id"), settings.get(name)
        found = value if isinstance(value, list) else [value]
        text = text.get("content") if isinstance(text, dict) else text
        named = id_of(text) if text else None
        return list(dict.fromkeys(number for number in (named, *found) if number is not None and is_token(number)))

    begin, end = ids("bos_token"), ids("eos_token")
    if not end:
        raise BadFileError("the folder does not say which token ends a text", hint="`eos_token_id` in config.json says so")
    return (begin[0] if begin else None), end


def _templates(folder: Path, settings: dict[str, Any]) -> tuple[str | None, str | None]:
    """The chat template, and the one of conversations with functions where that is another one. Files count before settings, and
    beside the first one's what settings say counts for nothing, as in `transformers`."""
    said = None if (folder / CHAT_TEMPLATE).is_file() else settings.get("chat_template")
    named = {str(each.get("name")): each.get("template") for each in said} if isinstance(said, list) else {"default": said}
    texts = ((folder / file, named.get(name)) for name, file in (("default", CHAT_TEMPLATE), ("tool_use", TOOL_TEMPLATE)))
    own, with_tools = (_text(file) if file.is_file() else text for file, text in texts)
    return templates.of_file(own, with_tools)


def _add_tokens(facts: dict[str, Any], added: dict[str, Any], settings: dict[str, Any]) -> None:
    """Put tokens that were added to a vocabulary later behind it, and mark the special ones, old and new."""
    decoder = settings.get("added_tokens_decoder") or {}
    known = {str(each["content"]): (int(at), bool(each.get("special"))) for at, each in decoder.items()}
    texts, fillers = _texts(settings, SPECIAL), _fillers(settings)
    for token, at in sorted({**added, **{token: at for token, (at, _) in known.items()}}.items(), key=lambda pair: pair[1]):
        if at > len(facts["tokens"]):
            raise _out_of_order(token, at, len(facts["tokens"]))
        if at == len(facts["tokens"]):
            facts["tokens"].append(token)
            facts["token_type"].append(USER_DEFINED)
            if "scores" in facts:
                facts["scores"].append(0.0)
    for at, token in enumerate(facts["tokens"]):
        kind = facts["token_type"][at]
        if kind in (NORMAL, USER_DEFINED) and (token in known or token in texts):
            is_special = known[token][1] if token in known else kind == USER_DEFINED or token not in fillers
            facts["token_type"][at] = CONTROL if is_special else USER_DEFINED


def _missing(backend: Any, count: int, said: dict[str, Any], settings: dict[str, Any]) -> list[Any]:
    """The tokens, beside `count` others, that `tokenizer_config.json` alone names, which `transformers` adds, too; not those that the
    model has no row for. Raises BadFileError for one whose number is not the next."""
    from tokenizers import AddedToken

    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    rows, fillers, missing = said.get("vocab_size"), _fillers(settings), list[Any]()
    for at, token in _named(settings):
        text, known = token["content"], backend.token_to_id(token["content"])
        number = known if known is not None else max(count, at or 0)  # what is there has kept its number
        if not text or text in there or (isinstance(rows, int) and number >= rows):
            continue
        if number > count:
            raise _out_of_order(text, number, count)
        flags = {flag: token[flag] for flag in FLAGS if token.get(flag) is not None}
        is_mark = at is None and (known is None or text not in fillers)
        is_special, is_normalised = bool(token.get("special", is_mark)), bool(token.get("normalized"))
        missing.append(AddedToken(text, special=is_special, normalized=is_normalised, **flags))
        there.add(text)
        count += known is None
    return missing


def _named(settings: dict[str, Any]) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Tokens that `tokenizer_config.json` names, as objects: with their number those that it gives one."""
    numbered = (settings.get("added_tokens_decoder") or {}).items()
    yield from sorted(((int(at), token) for at, token in numbered), key=lambda pair: pair[0])
    lists = (settings.get(name) or [] for name in OTHER_SPECIAL)
    others = itertools.chain.from_iterable(each.values() if isinstance(each, dict) else each for each in lists)
    for token in (*filter(None, map(settings.get, SPECIAL)), *others):
        yield None, token if isinstance(token, dict) else {"content": token}


def _fillers(settings: dict[str, Any]) -> set[str]:
    """Tokens that fill up rows or stand for what is unknown. Where they are words of the vocabulary, as a "!" that fills up, answers
    keep them; `transformers` leaves them out."""
    return _texts(settings, FILLERS) - _texts(settings, ENDS)


def _texts(settings: dict[str, Any], names: tuple[str, ...]) -> set[str]:
    found = filter(None, map(settings.get, names))
    return {str(each.get("content")) if isinstance(each, dict) else str(each) for each in found}


def _out_of_order(token: str, number: int, count: int) -> BadFileError:
    return BadFileError(
        f"the token `{token}` has the number {number}, and there are {count} before it",
        hint="the folder is not complete, or changed: download it again",
    )


def _flags(settings: dict[str, Any]) -> dict[str, dict[str, bool]]:
    """What a token takes away from the text around it, and whether it stands only by itself.

    Not `normalized`: a token is looked for in a text before a space is put before it.
    """
    named = [settings[name] for name in SPECIAL if isinstance(settings.get(name), dict)]
    said = [*named, *(settings.get("added_tokens_decoder") or {}).values()]
    return {each["content"]: {flag: each[flag] for flag in FLAGS if each.get(flag) is not None} for each in said}


def _pre_tokenizer(folder: Path, said: dict[str, Any], settings: dict[str, Any]) -> str:
    """How texts are split, which `vocab.json` and `merges.txt` do not say. Raises UnsupportedError where that would be a guess.

    The class decides where only one family has it: several that are split otherwise (SmolLM2, Phi-4) call themselves GPT-2's.
    """
    kind, family = str(settings.get("tokenizer_class")).removesuffix("Fast"), str(said.get("model_type"))
    if kind in PRE_TOKENIZERS_OF_CLASSES:
        return PRE_TOKENIZERS_OF_CLASSES[kind]
    if family not in pre_tokenizers.PRE_TOKENIZERS_OF:
        raise UnsupportedError(
            f"`{folder}` does not say how its tokenizer splits texts, and models of the kind `{family}` differ in it",
            hint="its `tokenizer.json` says so: download that, too",
        )
    return pre_tokenizers.PRE_TOKENIZERS_OF[family]


def _bpe_facts(folder: Path) -> dict[str, Any]:
    """GPT-2's files, which others have, too."""
    vocabulary = _json(folder / "vocab.json")
    places = {at: token for token, at in vocabulary.items() if type(at) is int}
    if sorted(places) != list(range(len(vocabulary))):
        raise BadFileError(f"`{folder / 'vocab.json'}` does not number its tokens from 0 on, each once", hint="download it again")
    tokens = [places[at] for at in range(len(places))]
    merges = _text(folder / "merges.txt").splitlines()
    return {
        "model": "gpt2",
        "tokens": tokens,
        "token_type": [NORMAL] * len(tokens),
        "merges": [merge for merge in merges if merge and not merge.startswith("#version")],
    }


def _sentencepiece_facts(path: Path) -> dict[str, Any]:
    """A SentencePiece model's vocabulary. Source: sentencepiece_model.proto, whose numbers for kinds of pieces are GGUF's."""
    facts: dict[str, Any] = {"model": "llama", "tokens": [], "scores": [], "token_type": []}
    require_fetched(path)
    content = path.read_bytes()
    if TIKTOKEN.match(content):
        hint = "put the `tokenizer.json` of the repository beside it, or take a GGUF file of the model"
        raise UnsupportedError(f"`{path}` is a vocabulary in tiktoken's form, which nomoat does not read", hint=hint)
    try:
        for field, value in _fields(content):
            if field == 1:
                piece = dict(_fields(value))
                facts["tokens"].append(piece[1].decode("utf-8"))
                facts["scores"].append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                facts["token_type"].append(piece.get(3, NORMAL))
            elif field == 2 and dict(_fields(value)).get(3, UNIGRAM) == UNIGRAM:
                raise UnsupportedError(f"`{path}` is a Unigram vocabulary, which nomoat cannot read yet", hint="BPE vocabularies work")
            elif field == 3:
                rules = dict(_fields(value))
                facts["add_space_prefix"] = bool(rules.get(3, 1))
                facts["remove_extra_whitespaces"] = bool(rules.get(4, 1))
                facts["precompiled_charsmap"] = rules.get(2, b"")
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, TypeError, AttributeError) as exc:
        raise BadFileError(f"`{path}` is not a whole SentencePiece model: {exc}", hint="download it again") from exc
    return facts


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protobuf message: ints of varints, bytes of everything else."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 7 * VARINT_BYTES, 7):
            byte = data[at]
            at, value = at + 1, value | (byte & 127) << shift
            if byte < 128:
                return value
        raise IndexError(f"a number of more than {VARINT_BYTES} bytes before byte {at}")

    while at < len(data):
        field, wire = divmod(varint(), 8)
        if wire == 0:
            yield field, varint()
            continue
        size = {1: 8, 5: 4}[wire] if wire != 2 else varint()
        if at + size > len(data):
            raise IndexError(f"a field of {size} bytes at byte {at}")
        at += size
        yield field, data[at - size : at]


def _settings(folder: Path) -> dict[str, Any]:
    """What the tokenizer's own settings say, with the special tokens that an older `transformers` wrote elsewhere: it reads them
    before those of `tokenizer_config.json`, where that does not number its tokens. Raises BadFileError, see `_require_kinds`."""
    settings = _json(folder / "tokenizer_config.json")
    if _counts_older(settings):
        older = _json(folder / SPECIAL_TOKENS)
        settings |= {name: older[name] for name in SPECIAL if older.get(name) is not None}
    _require_kinds(folder, _said(folder), settings)
    return settings


def _counts_older(settings: dict[str, Any]) -> bool:
    return "added_tokens_decoder" not in settings


def _said(folder: Path) -> dict[str, Any]:
    """What the model's own settings say, the part that writes text included."""
    said = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}
    inner = said.get("text_config")
    return {**(inner if isinstance(inner, dict) else {}), **said}


def _require_kinds(folder: Path, said: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise BadFileError for a value that is of another kind than the format gives it; null is as good as none."""
    checks = [
        *((said, f"{name}_token_id", _is_number_or_numbers) for name in ("bos", "eos")),
        *((settings, name, _is_token) for name in SPECIAL),
        *((settings, name, _is_truth) for name in ("add_bos_token", "add_eos_token", "add_prefix_space")),
        (settings, "tokenizer_class", lambda value: isinstance(value, str)),
        (settings, "added_tokens_decoder", _is_decoder),
        *((settings, name, _are_tokens) for name in OTHER_SPECIAL),
    ]
    for facts, key, is_so in checks:
        _require_kind(folder, facts, key, is_so)
    _require_template(folder, settings)


def _require_template(folder: Path, settings: dict[str, Any]) -> None:
    _require_kind(folder, settings, "chat_template", lambda value: isinstance(value, str) or _are_templates(value))


def _require_kind(folder: Path, facts: dict[str, Any], key: str, is_so: Callable[[Any], bool]) -> None:
    if facts.get(key) is not None and not is_so(facts[key]):
        raise BadFileError(f"`{key}` in the settings of `{folder}` is not what it should be", hint="download it again")


def _is_number_or_numbers(value: Any) -> bool:
    return all(type(number) is int for number in (value if isinstance(value, list) else [value]))


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return _is_added_token(value) if isinstance(value, dict) else isinstance(value, str)


def _is_added_token(value: Any) -> bool:
    """Of `tokenizers`: its text, and how it is found."""
    flags = (value.get(flag) for flag in FLAGS) if isinstance(value, dict) else ()
    return isinstance(value, dict) and isinstance(value.get("content"), str) and all(flag is None or _is_truth(flag) for flag in flags)


def _are_templates(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) and isinstance(each.get("template"), str | None) for each in value)


def _are_tokens(value: Any) -> bool:
    found = value.values() if isinstance(value, dict) else value
    return isinstance(value, list | dict) and all(map(_is_token, found))


def _is_decoder(value: Any) -> bool:
    return isinstance(value, dict) and all(at.isdecimal() and len(at) < 10 and _is_added_token(each) for at, each in value.items())


def _json(path: Path) -> dict[str, Any]:
    """An object; empty where there is no such file."""
    return read_object(path) if path.is_file() else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BadFileError(f"`{path}` cannot be read: {exc}", hint="download it again") from exc
