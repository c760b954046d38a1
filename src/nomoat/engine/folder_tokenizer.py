"""The tokenizer of a Hugging Face folder: `tokenizer.json`, else `tokenizer.model`, else `vocab.json` and `merges.txt`."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nomoat.engine import tokenizer
from nomoat.engine.tokenizer import CONTROL, NORMAL, USER_DEFINED, SpecialTokens, Tokenizer
from nomoat.errors import BadFileError, UnsupportedError

UNIGRAM = 1  # SentencePiece's number for it


def read(folder: Path) -> Tokenizer:
    """The tokenizer with its special tokens and chat template. Raises BadFileError, UnsupportedError."""
    said = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}
    said = {**(said.get("text_config") or {}), **said}
    settings = _json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        return _from_json(folder, said, settings)
    if (folder / "tokenizer.model").is_file():
        facts = _sentencepiece_facts(folder / "tokenizer.model")
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        facts = _bpe_facts(folder)
    else:
        raise BadFileError(
            f"`{folder}` holds no tokenizer", hint="it needs `tokenizer.json`, `tokenizer.model`, or `vocab.json` and `merges.txt`"
        )
    _add_tokens(facts, _json(folder / "added_tokens.json"), settings)
    facts["bos_token_id"], (facts["eos_token_id"], *more) = _ends(facts["tokens"].index, said, settings)
    if "add_bos_token" in settings:
        facts["add_bos_token"] = settings["add_bos_token"]
    metadata = {f"tokenizer.ggml.{name}": value for name, value in facts.items()}
    metadata["tokenizer.chat_template"] = _chat_template(folder, settings)
    made = tokenizer.from_metadata({key: value for key, value in metadata.items() if value is not None})
    made.special = replace(made.special, stop_ids=tuple(sorted({*made.special.stop_ids, *more})))
    return made


def _from_json(folder: Path, said: dict[str, Any], settings: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    path = folder / "tokenizer.json"
    try:
        backend = Backend.from_file(str(path))
    except Exception as exc:  # `tokenizers` raises nothing more exact
        raise BadFileError(f"`{path}` is not a whole tokenizer: {exc}", hint="download it again") from exc
    backend.no_truncation()
    backend.no_padding()

    def id_of(token: str) -> int:
        found = backend.token_to_id(token)
        if found is None:
            raise ValueError(token)
        return int(found)

    bos_id, eos_ids = _ends(id_of, said, settings)
    special = SpecialTokens(
        bos_id=bos_id,
        eos_id=eos_ids[0],
        stop_ids=tokenizer.stop_ids(eos_ids, backend.token_to_id),
        add_bos=bos_id is not None and backend.encode("a").ids[:1] == [bos_id],
    )
    return Tokenizer(backend, special, _chat_template(folder, settings))


def _ends(id_of: Any, said: dict[str, Any], settings: dict[str, Any]) -> tuple[int | None, list[int]]:
    """The token that begins a text, if there is one, and those that end one. `id_of` raises ValueError for what is no token."""

    def ids(name: str) -> list[int]:
        value = said.get(f"{name}_id")
        found = list(value) if isinstance(value, list) else [] if value is None else [int(value)]
        text = settings.get(name)
        text = text.get("content") if isinstance(text, dict) else text
        try:
            return list(dict.fromkeys([*found, id_of(text)] if text else found))
        except ValueError:
            return found

    begin, end = ids("bos_token"), ids("eos_token")
    if not end:
        raise BadFileError("the folder does not say which token ends a text", hint="`eos_token_id` in config.json says so")
    return (begin[0] if begin else None), end


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    return template


def _add_tokens(facts: dict[str, Any], added: dict[str, Any], settings: dict[str, Any]) -> None:
    """Put tokens that were added to a vocabulary later behind it, and mark the special ones, old and new."""
    decoder = settings.get("added_tokens_decoder", {})
    known = {str(each["content"]): (int(at), bool(each.get("special"))) for at, each in decoder.items()}
    special = {"bos_token", "eos_token", "unk_token", "pad_token"}
    texts = {text.get("content") if isinstance(text, dict) else text for name, text in settings.items() if name in special}
    for token, at in sorted({**added, **{token: at for token, (at, _) in known.items()}}.items(), key=lambda pair: int(pair[1])):
        if at > len(facts["tokens"]):
            raise BadFileError(f"the token `{token}` has the number {at}, and there are {len(facts['tokens'])} before it")
        if at == len(facts["tokens"]):
            facts["tokens"].append(token)
            facts["token_type"].append(USER_DEFINED)
            if "scores" in facts:
                facts["scores"].append(0.0)
    for at, token in enumerate(facts["tokens"]):
        if (known[token][1] if token in known else token in texts) and facts["token_type"][at] in (NORMAL, USER_DEFINED):
            facts["token_type"][at] = CONTROL


def _bpe_facts(folder: Path) -> dict[str, Any]:
    """GPT-2's files: GPT-2, GPT-J, OPT."""
    tokens = [token for token, _ in sorted(_json(folder / "vocab.json").items(), key=lambda pair: int(pair[1]))]
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    return {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [NORMAL] * len(tokens),
        "merges": [merge for merge in merges if merge and not merge.startswith("#version")],
    }


def _sentencepiece_facts(path: Path) -> dict[str, Any]:
    """A SentencePiece model's vocabulary. Source: sentencepiece_model.proto, whose numbers for kinds of pieces are GGUF's."""
    facts: dict[str, Any] = {"model": "llama", "tokens": [], "scores": [], "token_type": []}
    try:
        for field, value in _fields(path.read_bytes()):
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
        value = shift = 0
        while True:
            byte = data[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

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


def _json(path: Path) -> dict[str, Any]:
    """An object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise BadFileError(f"`{path}` cannot be read: {exc}", hint="download it again") from exc
    if not isinstance(content, dict):
        raise BadFileError(f"`{path}` holds no JSON object", hint="download it again")
    return content
