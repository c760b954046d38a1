"""What a model wrote in Markdown, as HTML that runs and fetches nothing."""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType

# Hangul, Kana and Han: letters of words that follow one another, or a particle a word, without a space.
NO_SPACE = re.compile(
    "[\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)


class _State(StateInline):
    """Also bold is what ends in a bracket, a quote or a per cent sign and has a particle right behind it: `**연금(NPS)**은`.

    CommonMark takes such an end for none, since a letter follows: https://github.com/commonmark/commonmark-spec/issues/650.
    """

    def scanDelims(self, start: int, canSplitWord: bool) -> Scanned:  # noqa: N802 - the library's names
        found = super().scanDelims(start, canSplitWord)
        before, after = self.src[max(0, start - 1) : start], self.src[start + found.length : start + found.length + 1]
        if not canSplitWord:
            return found
        opens = found.can_open or bool(NO_SPACE.match(before) and _is_punctuation(after))
        closes = found.can_close or bool(NO_SPACE.match(after) and _is_punctuation(before))
        return Scanned(opens, closes, found.length)


def _is_punctuation(character: str) -> bool:
    return bool(character) and (isMdAsciiPunct(ord(character)) or isPunctChar(character))


class _Inline(ParserInline):
    def parse(self, src: str, md: MarkdownIt, env: EnvType, tokens: list[Token]) -> list[Token]:
        state = _State(src, md, env, tokens)
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


@functools.cache
def _renderer() -> MarkdownIt:
    made = MarkdownIt()
    made.inline = _Inline()
    made.configure("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    made.disable("image")  # pictures would be fetched from wherever a model says; as text they are an address
    made.render("*a*")  # the first use sets up its rules, which several threads may not do at once
    return made


def as_html(markdown: str) -> str:
    """HTML without tags, scripts or pictures of the writer's own; links open in a tab of theirs and tell no referrer."""
    tokens = _renderer().parse(markdown)
    for token in tokens:
        for part in token.children or ():
            if part.type == "link_open":
                part.attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
    return str(_renderer().renderer.render(tokens, _renderer().options, {}))
