"""Write llama_cpp_splits.json beside this file: what llama.cpp makes of each `tokenizer.ggml.pre` that nomoat knows.

That is where texts of many scripts are split, whether a word that is a token needs no merges, and whether a token begins each text.

    PYTHONPATH=src:tests python tests/engine/make_llama_cpp_splits.py

in an environment with llama-cpp-python and what pyproject.toml names. No real vocabulary is needed: one of all bytes, in which any
neighbours of a text can be merged, makes one token of each part that it is split into.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gguf
import llama_cpp
from tiny import finish
from tokenizers.pre_tokenizers import ByteLevel

from nomoat.engine.pre_tokenizers import PRE_TOKENIZERS

TARGET = Path(__file__).parent / "llama_cpp_splits.json"
BETWEEN = "@"  # in none of the texts
WORD = "zqz"  # a token that no merges lead to
TEXTS = (
    "don't I'LL we'Ve  it’s 'S'Re x'",
    "HTTPServer camelCase ÀÉpoque Straße",
    "1234567 3.14 1,234 0x1F 1e-10 v2",
    "٣٤١٢ ½ x² Ⅷ 三 ①②③④ ㎏",
    "x=y+1;\n\tdef f(a):\n        return",
    "if (a<=b) {$c += ~d|^e`g`;} //#!",
    "https://a.b/c//\n\n/e?f=1&g=%20\\n",
    "안녕하세요, 대한민국! ㅋㅋㅋ해자",
    "2026년 12월 1일(화)…「네」 3.5만원",
    "\u1112\u1161\u11ab\u1100\u1173\u11af jamo ㄱㄴㅏ",
    "漢字かなカナー、々〇。豈㐀𠀀ﾊﾟ，！",
    "🙂👨\u200d👩\u200d👧 🏽❤\ufe0f🇰🇷 ok🙂",
    "Привет, мир! Ἑλλάς ΩΣς",
    "مرحبا، كيف؟ שלום",
    "  leading and trailing   ",
    "a \n \n\n b\t\tc \t d\n  \n",
    "\r\nCRLF\r\n\r\nlines\r \r\n",
    "a\u2028line\u2029para\x85next\u00a0nbsp\u3000wide",
    "\u3000，“ \u2028“\u2003!",
    "\ufeffBOM zero\u200b\u200dwidth\u00adsoft\ufeff",
    "\x00nul\x1besc\x0bvt\x0cff\x1cfs \x7f",
    "café naïve “quotes” — dash… «ok»",
    "cafe\u0301École हिन्दी ไทยไม่มี שָׁלוֹם",
    "Ǆǅǆ aʰB ª º ℵ € ∑ ← İıſ",
)


def letters(text: str) -> str:
    """A text's bytes as a byte-level vocabulary writes them."""
    return ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[0][0]


def vocabulary(text: str) -> tuple[list[str], list[str]]:
    """Tokens, and merges that make a character of its bytes, and one token of whatever stands beside each other in the text."""
    characters = [letters(character) for character in text]
    merges = [(one[:at], one[at]) for one in characters for at in range(1, len(one))]
    for size in range(2, len(characters) + 1):
        for start in range(len(characters) - size + 1):
            part = characters[start : start + size]
            merges += [("".join(part[:at]), "".join(part[at:])) for at in range(1, size)]
    merges = list(dict.fromkeys(merges))
    return [*dict.fromkeys([*sorted(ByteLevel.alphabet()), *map("".join, merges)])], [" ".join(pair) for pair in merges]


def write(path: Path, tokens: Sequence[str], merges: Sequence[str], pre: str) -> None:
    """A GGUF file of a vocabulary alone."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for add in (writer.add_block_count, writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(1)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    finish(writer)


def encoded(path: Path, text: str) -> list[int]:
    """Ids, with the one that begins a text where llama.cpp puts it."""
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    ids = model.tokenize(text.encode(), add_bos=True)
    model.close()
    return ids


def main() -> None:
    """Those of `pre` that split all texts alike stand together."""
    split, whole, begins = dict[str, tuple[str, ...]](), list[str](), list[str]()
    vocabularies = {text: vocabulary(text) for text in TEXTS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        for pre in PRE_TOKENIZERS:
            write(path, tokens := [*sorted(ByteLevel.alphabet()), WORD], ["a b"], pre)
            ids, found = encoded(path, WORD), list[str]()
            whole += [pre] if tokens.index(WORD) in ids else []
            begins += [pre] if ids[0] == 0 else []
            for text, (tokens, merges) in vocabularies.items():
                write(path, tokens, merges, pre)
                parts = {letters(text[start:end]): text[start:end] for end in range(len(text) + 1) for start in range(end)}
                ids = encoded(path, text)[1 if pre in begins else 0 :]
                found.append(BETWEEN.join(parts[tokens[number]] for number in ids))
            split[pre] = tuple(found)
    made = {
        "made_with": f"llama-cpp-python {llama_cpp.__version__}, tests/engine/make_llama_cpp_splits.py",
        "whole_words_first": whole,
        "begins_texts": begins,
        "ways": [{"pre": [pre for pre in split if split[pre] == way], "splits": way} for way in dict.fromkeys(split.values())],
    }
    TARGET.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
