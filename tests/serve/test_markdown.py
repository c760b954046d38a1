"""What a model's Markdown becomes on the page, and what it may not do there."""

from __future__ import annotations

import html
import re

import pytest

from nomoat.errors import BadRequestError
from nomoat.serve.web.markdown import as_html


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("**해자**란\n`a<b`", "<p><strong>해자</strong>란<br />\n<code>a&lt;b</code></p>\n"),
        ("```py\nx < 1\n```", '<pre><code class="language-py">x &lt; 1\n</code></pre>\n'),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>\n"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>\n"),
        ("[a](ms-msdt:/id)", "<p>[a](ms-msdt:/id)</p>\n"),
        ("[a](HTTP://b.c)", '<p><a href="HTTP://b.c" target="_blank" rel="noopener noreferrer">a</a></p>\n'),
        ("[a](mailto:b@c.d)", '<p><a href="mailto:b@c.d" target="_blank" rel="noopener noreferrer">a</a></p>\n'),
        ("[a](b/c:d)", '<p><a href="b/c:d" target="_blank" rel="noopener noreferrer">a</a></p>\n'),
        ("<vscode://b/c>", "<p>&lt;vscode://b/c&gt;</p>\n"),
        ("[a](https://b.c)", '<p><a href="https://b.c" target="_blank" rel="noopener noreferrer">a</a></p>\n'),
    ],
)
def test_markdown_becomes_html_that_runs_nothing(written: str, shown: str) -> None:
    assert as_html(written) == shown


def test_no_tag_has_a_style_which_the_page_would_not_let_stand() -> None:
    shown = as_html("|a|b|c|d|\n|:-|-:|:-:|-|\n|1|2|3|4|\n")
    assert re.findall("<t[hd]( .*?)?>", shown) == [' class="left"', ' class="right"', ' class="center"', ""] * 2


@pytest.mark.parametrize(
    "bold", ["국민연금(NPS)", '"모트"', "50%", "1,000원(약 1달러)", "안녕하세요!", "서울특별시", "日本語（にほんご）", "重要提示："]
)
@pytest.mark.parametrize("behind", ["은", "를", "라고", "です", "的", " is", ".", ""])
def test_what_is_bold_may_have_a_particle_right_behind_it(bold: str, behind: str) -> None:
    assert as_html(f"그 **{bold}**{behind}") == f"<p>그 <strong>{html.escape(bold)}</strong>{behind}</p>\n"
    assert as_html(f"그*{bold}*{behind}") == f"<p>그<em>{html.escape(bold)}</em>{behind}</p>\n"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("**[링크](https://b.c)**를", '<strong><a href="https://b.c" target="_blank" rel="noopener noreferrer">링크</a></strong>를'),
        ("**`코드`**를 **`x`**로", "<strong><code>코드</code></strong>를 <strong><code>x</code></strong>로"),
        ('그는 "**가나**"라고', "그는 &quot;<strong>가나</strong>&quot;라고"),
        ("2*3*4, a*(b)*c", "2<em>3</em>4, a*(b)*c"),
        ("가 ** 나", "가 ** 나"),
    ],
)
def test_bold_beside_marks(written: str, shown: str) -> None:
    assert as_html(written) == f"<p>{shown}</p>\n"


NESTED = {
    "lists": lambda depth: "".join(f"{'  ' * at}- word{at}\n" for at in range(depth)),
    "quotes": lambda depth: "".join(f"{'> ' * (at + 1)}word{at}\n" for at in range(depth)),
    "both": lambda depth: "".join(f"{'> ' * at}- word{at}\n" for at in range(depth)),
    "brackets": lambda depth: "".join(f"[word{at} " for at in range(depth)),
}


@pytest.mark.parametrize("kind", NESTED)
def test_every_word_of_what_is_nested_stands_in_the_html_or_the_text_is_refused(kind: str) -> None:
    """Where it is refused the page shows it as it was written."""
    for depth in (12, 40, 60, 120):
        try:
            shown = as_html(NESTED[kind](depth))
        except BadRequestError as error:
            assert (kind, depth) not in {(kind, 12), (kind, 40)}
            assert "nested more than 100 levels deep" in error.message
        else:
            assert all(re.search(rf"word{at}\b", shown) for at in range(depth))


@pytest.mark.parametrize(
    "maths",
    [
        "$a*b*c$", "$x_i^{*} y_i^{*}$", "$$x_i^{*} y_i^{*}$$", r"\( \{x_1\} \\ x_2 \)", r"\[ a*b*c \]", "$a^*$", "$M^{**}$", "$n$th",
        r"$\$a_1 _b$", "$2x$", "\\[\na_1 &= b\n= c \\\\\nd*e*f\n\\]", "$$\na_1\n= b_1 \\{\\}\n$$",
    ],
)  # fmt: skip
def test_tex_stays_as_it_was_written(maths: str) -> None:
    for before, behind in (("", ""), ("So ", ", *then*"), ("So\n", "\nthen"), ("- ", "\n- so"), ("**", "**는")):
        shown = as_html(before + maths.replace("\n", "\n  " if before == "- " else "\n") + behind)
        assert html.escape(maths) in re.sub("<br />", "", shown), shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("$5 and *$10*", "$5 and <em>$10</em>"),
        ("**$5** or **10$**, $5-*$6*", "<strong>$5</strong> or <strong>10$</strong>, $5-<em>$6</em>"),
        ("**$HOME** and **$PATH** matter.", "<strong>$HOME</strong> and <strong>$PATH</strong> matter."),
        ("*$x* and *$y*, _$x_ and _$y_", "<em>$x</em> and <em>$y</em>, <em>$x</em> and <em>$y</em>"),
        ("**$20/month** or **20$**", "<strong>$20/month</strong> or <strong>20$</strong>"),
        ("~~$A~~ ~~$B~~ 5$", "<s>$A</s> <s>$B</s> 5$"),
        ("~~$20/month~~ now 15$", "<s>$20/month</s> now 15$"),
        ("$A and `$B` *so* $", "$A and <code>$B</code> <em>so</em> $"),
        ("`$a*b*c$`", "<code>$a*b*c$</code>"),
        (r"\$a *b* c\$", "$a <em>b</em> c$"),
        (r"\( *a*", "( <em>a</em>"),
        ("$$ *a*", "$$ <em>a</em>"),
        ("$<b>$", "$&lt;b&gt;$"),
    ],
)
def test_dollars_and_brackets_that_are_no_tex(written: str, shown: str) -> None:
    assert as_html(written) == f"<p>{shown}</p>\n"


def test_dollars_of_two_links_are_no_tex() -> None:
    assert re.findall(r">(\$\w+)</a>", as_html("[$HOME](u), [$PATH](v)")) == ["$HOME", "$PATH"]


def test_tex_that_stands_alone_keeps_its_lines_and_runs_nothing() -> None:
    assert as_html("> \\[\n> <b>\n> - c\n> \\].\n> *a*") == (
        '<blockquote>\n<p class="plain">\\[\n&lt;b&gt;\n- c\n\\].</p>\n<p><em>a</em></p>\n</blockquote>\n'
    )
    assert as_html("$$ cheap\n\n*a*: $$") == "<p>$$ cheap</p>\n<p><em>a</em>: $$</p>\n"
    assert as_html("> $$\na *b*\n$$") == "<blockquote>\n<p>$$<br />\na *b*<br />\n$$</p>\n</blockquote>\n"


def test_headings_are_below_those_of_the_page() -> None:
    assert as_html("# a\n\nb\n===\n\nc\n---\n\n#### d\n\n###### e") == ("<h3>a</h3>\n<h3>b</h3>\n<h4>c</h4>\n<h6>d</h6>\n<h6>e</h6>\n")


def test_a_picture_in_an_answer_is_not_fetched() -> None:
    assert "<img" not in as_html("![chart](https://collector.example/?said=secret) ![x][y]\n\n[y]: https://collector.example/")


@pytest.mark.parametrize("turn", [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_what_turns_letters_around_is_shown_in_code_and_links_alone(turn: int) -> None:
    """Else code and a link's name look like others."""
    character, shown = chr(turn), f"⟨U+{turn:04X}⟩"
    for written in ("`a#b`", "```sh\na#b\n```", "    a#b", "[a*b#*`#`](https://c.d)", "<https://c.d/#e>"):
        html_of_it = as_html(written.replace("#", character))
        assert character not in html_of_it and shown in html_of_it
    assert as_html(f"*a*{character}b [c](u) {character} d").count(character) == 2
    assert "⟨" not in as_html("`\u200f` [\u200e\u061c](u)")  # marks of a direction turn nothing around
