"""What a model wrote in Markdown, as HTML that runs and fetches nothing."""

from __future__ import annotations

import functools
import re

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml, isMdAsciiPunct, isPunctChar
from markdown_it.parser_block import ParserBlock
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Scanned
from markdown_it.token import Token
from markdown_it.utils import EnvType

from nomoat.errors import BadRequestError
from nomoat.words import SHOWN_TURNS

MAX_NESTING = 100  # a list within a list is two levels, a quote one; what is deeper would take Python's stack
MAX_INLINE_NESTING = 20  # brackets within brackets: each level is a reading more of what stands in them
CODE = ("fence", "code_block", "code_inline")  # the library's names
HEADINGS = ("heading_open", "heading_close")
# Of a link: an address of the web or of mail, or one on this server. Others may start a program of the reader's machine.
FOLLOWED = re.compile(r"(?:https?|mailto):|(?![a-z][a-z0-9+.-]*:)", re.IGNORECASE)
# Hangul, Kana and Han: letters of words that follow one another, or a particle a word, without a space.
NO_SPACE = re.compile(
    "[\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
# TeX stays as it was written. A dollar before a digit or behind a space ends none (`$5 and $10`), nor does one in code or
# where a mark opens (`**$HOME** and **$PATH**`), and `**$5**` and `**$5/month**` are prices.
# Each alternative ends where its own opening comes again, so that a text full of openings is still read in one pass.
DISPLAYED = r"\$\$(?:[^$\\]|\\.)+\$\$|\\\[(?:[^\\]|\\[^\[\]])+\\\]"
OPENING = r"(?<!\$)\$(?!\s|[\d.,]*\*\*)(?!(?<=\*\*\$)[^$\n]*\*\*(?!\}))(?!(?<=~~\$)[^$\n]*~~)"
CLOSING = r"(?<=\S)(?<!\*\*)(?<!~~)(?<!\s[*_~\[])\$(?![$\d])"
INLINE_MATHS = re.compile(rf"{DISPLAYED}|\\\((?:[^\\`]|\\[^()])+\\\)|{OPENING}(?:[^$\\`\n]|\\.)+{CLOSING}", re.DOTALL)
MATHS_BLOCK = re.compile(rf"[ ]{{0,3}}(?P<maths>(?:{DISPLAYED})[.,;:]?)\s*", re.DOTALL)


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
        state.level = MAX_NESTING - MAX_INLINE_NESTING  # the library has one limit for both
        self.tokenize(state)
        for rule in self.ruler2.getRules(""):
            rule(state)
        return state.tokens


class _Block(ParserBlock):
    """Says that a text is nested too deep. The library's own leaves out what is deeper, without a word."""

    def tokenize(self, state: StateBlock, startLine: int, endLine: int) -> None:
        if state.level >= MAX_NESTING:
            raise BadRequestError(f"lists and quotes are nested more than {MAX_NESTING} levels deep")
        super().tokenize(state, startLine, endLine)


def _inline_maths(state: StateInline, silent: bool) -> bool:
    found = INLINE_MATHS.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        for at, line in enumerate(found[0].split("\n")):
            if at:
                state.push("softbreak", "br", 0)
            state.pending += line
    state.pos = found.end()
    return True


def _maths_block(state: StateBlock, startLine: int, endLine: int, silent: bool) -> bool:
    line = _line(state, startLine)
    closing = {"$$": "$$", "\\[": "\\]"}.get(line[:2])
    if closing is None or state.is_code_block(startLine):
        return False
    last, line = startLine, line[2:]
    while closing not in line:
        last += 1
        if last >= endLine or state.isEmpty(last) or state.sCount[last] < state.blkIndent:  # less indent is what stands around
            return False
        line = _line(state, last)
        if line.startswith("\\["):
            return False
    found = MATHS_BLOCK.fullmatch(state.getLines(startLine, last + 1, state.blkIndent, False))
    if found and not silent:
        state.push("maths_block", "p", 0).content = found["maths"]
        state.line = last + 1
    return found is not None


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


@functools.cache
def _renderer() -> MarkdownIt:
    made = MarkdownIt()
    made.inline, made.block = _Inline(), _Block()
    made.inline.ruler.before("escape", "maths", _inline_maths)
    made.block.ruler.before("fence", "maths", _maths_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    made.configure("commonmark", {"html": False, "breaks": True, "maxNesting": MAX_NESTING})
    made.enable(["maths", "table", "strikethrough"])
    made.add_render_rule("maths_block", lambda _, tokens, at, *__: f'<p class="plain">{escapeHtml(tokens[at].content)}</p>\n')
    made.validateLink = lambda url: bool(FOLLOWED.match(url.strip()))  # type: ignore[method-assign]
    made.disable("image")  # pictures would be fetched from wherever a model says; as text they are an address
    made.render("*a*")  # the first use sets up its rules, which several threads may not do at once
    return made


def as_html(markdown: str) -> str:
    """HTML without tags, scripts or pictures of the writer's own; links open in a tab of theirs and tell no referrer.

    Headings begin at the third level: the page's own are above them. Where code and links hold characters that
    turn letters around, these are shown.
    """
    tokens = _renderer().parse(markdown)
    for token in tokens:
        if style := token.attrs.pop("style", None):  # of a table's cell; the page lets no style stand in a tag
            token.attrs["class"] = str(style).removeprefix("text-align:")
        if token.type in HEADINGS:
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        if token.type in CODE:
            token.content = token.content.translate(SHOWN_TURNS)
        is_link = False  # none stands within another
        for part in token.children or ():
            if part.type == "link_open":
                part.attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
            is_link = part.type == "link_open" or (is_link and part.type != "link_close")
            if is_link or part.type in CODE:
                part.content = part.content.translate(SHOWN_TURNS)
    return str(_renderer().renderer.render(tokens, _renderer().options, {}))
