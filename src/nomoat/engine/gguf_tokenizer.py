"""The tokenizer that a GGUF file's metadata describes; folders of SentencePiece models and of `vocab.json` are read the same way.

Not covered: vocabularies of other kinds (WordPiece, unigram), which are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nomoat.engine import harmony, pre_tokenizers
from nomoat.engine.tokenizer import SPACE, SpecialTokens, Tokenizer, translated
from nomoat.errors import BadFileError, UnsupportedError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5  # `tokenizer.ggml.token_type`
TEMPLATES = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
LONGEST_PIECE = 1000  # letters; cutting one takes time by its square, and the longest of real vocabularies have some dozens
KEEPS_SPACES = ("<unk>", "<s>", "<|endoftext|>")  # of Phi-3's special tokens; the others take the spaces and lines behind them away
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>")
TURN_MARKS = (*TURN_ENDS, "<start_of_turn>")  # whatever a file says, no words; llama.cpp holds the ends so, too

# Behind these a model of code goes on with another file: Qwen2.5-Coder's, Granite's (as in llama-vocab.cpp).
FILE_ENDS = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<reponame>")

INFILL = (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle"))  # the second are older names of the same

COMPOSES = ("qwen2", "mpt")  # letters and their accents become one (NFC) before a text is split
# These read a token before a text, unless the file says otherwise (as in llama-vocab.cpp).
BEGINS_TEXTS = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
# Of these a word that is a token needs no merges: of GLM-4's there are some, such as " 王", that none lead to.
WHOLE_WORDS_FIRST = (*BEGINS_TEXTS, "glm4", "chatglm-bpe", "minicpm5")


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
    if tokens is None or eos_id is None:
        missing = "tokens" if tokens is None else "eos_token_id"
        raise BadFileError(f"the file does not say `tokenizer.ggml.{missing}`", hint="try another file of this model")
    if not 0 <= eos_id < len(tokens):
        message = f"the file says `tokenizer.ggml.eos_token_id` = {eos_id}, and has {len(tokens):,} tokens"
        raise BadFileError(message, hint="try another file of this model")
    types = _types(metadata, tokens)
    vocabulary = {token: at for at, token in enumerate(tokens[: _num_used(types)])}
    kind, pre, arch = metadata.get("tokenizer.ggml.model"), "", str(metadata.get("general.architecture"))
    if kind == "gpt2":
        said = metadata.get("tokenizer.ggml.pre")
        pre = pre_tokenizers.unsaid(arch, len(tokens)) if said in pre_tokenizers.SAYS_NOTHING else said
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
    bos_id = bos_id if bos_id is not None and 0 <= bos_id < len(tokens) else None  # some files write 2^32 - 1 for none
    begins = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or (pre in BEGINS_TEXTS and bos_id is not None))
    if begins and bos_id is None and kind == "llama":
        bos_id = _unsaid_begin(tokens)
    special = SpecialTokens(
        bos_id=bos_id,
        eos_id=eos_id,
        stop_ids=stop_ids([eos_id, *_turn_ends(metadata, len(tokens))], backend.token_to_id),
        begin_ids=() if bos_id is None or not begins else (bos_id,),
        end_ids=(eos_id,) if metadata.get("tokenizer.ggml.add_eos_token", False) else (),
    )
    own, with_tools = (metadata.get(key) for key in TEMPLATES)
    made = Tokenizer(backend, special, own, tool_template=with_tools)
    made.said_marks = _infill_marks(metadata, len(tokens))
    return made


def _require_kinds(metadata: dict[str, Any]) -> None:
    """Raises BadFileError for a value of the tokenizer that is of another kind than the format gives it."""
    checks: dict[str, Callable[[Any], bool]] = {
        **dict.fromkeys(("tokens", "merges"), _are_texts),
        **dict.fromkeys(("token_type", "scores"), _are_numbers),
        **dict.fromkeys((f"{end}_token_id" for end in ("bos", "eos", "eot", "eom")), lambda value: type(value) is int),
        **dict.fromkeys(
            ("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"), lambda value: isinstance(value, bool)
        ),
        "precompiled_charsmap": lambda value: isinstance(value, bytes) or (isinstance(value, np.ndarray) and value.itemsize == 1),
        **dict.fromkeys(("model", "pre"), lambda value: isinstance(value, str)),
    }
    found = {f"tokenizer.ggml.{name}": check for name, check in checks.items()}
    found |= dict.fromkeys(TEMPLATES, lambda value: isinstance(value, str))
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
    ends = {found for end in (*TURN_ENDS, *FILE_ENDS, *harmony.ENDS) if (found := id_of(end)) is not None}.union(eos_ids)
    if all(id_of(end) is not None for end in harmony.ENDS):
        ends -= {id_of(harmony.END)}  # another message follows, as llama.cpp has it (llama-vocab.cpp)
    return tuple(sorted(ends))


def _unsaid_begin(tokens: list[str]) -> int:
    """The token that begins each text, of a SentencePiece file that does not say which one: the usual one, as in llama.cpp, if that is
    there. Raises BadFileError."""
    if tokens[1:2] == ["<s>"]:
        return 1
    raise BadFileError("the file begins each text with a token, and does not say which", hint="try another file of this model")


def _turn_ends(metadata: dict[str, Any], num_tokens: int) -> list[int]:
    """The tokens that a file says end a turn or a message."""
    said = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom"))
    return [token_id for token_id in said if token_id is not None and 0 <= token_id < num_tokens]


def _infill_marks(metadata: dict[str, Any], num_tokens: int) -> tuple[int, ...]:
    """The tokens that a file says fill in the middle of a text, if it names all three; what is no token is none."""
    for names in INFILL:
        said = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names)
        ids = tuple(token_id for token_id in said if isinstance(token_id, int) and 0 <= token_id < num_tokens)
        if len(ids) == len(names):
            return ids
    return ()


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

    split = (merge.partition(" ") for merge in merges)  # what has more than two parts is no merge, as in llama.cpp
    pairs = [(left, right) for left, _, right in split if " " not in right]
    if merges and not pairs:
        raise BadFileError("the file's vocabulary and merges do not fit together", hint="try another file of this model")
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

    for kind in (CONTROL, USER_DEFINED):
        added = [
            AddedToken(token, special=kind == CONTROL, normalized=False, **flags.get(token, {}))
            for token, t in zip(tokens, types, strict=True)
            if t == kind
        ]
        backend.add_tokens(added)
