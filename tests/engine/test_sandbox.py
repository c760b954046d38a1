"""Chat templates are programs that anybody may have made: what they may take, and that honest ones are not refused."""

import tracemalloc
from typing import Any

import pytest

from nomoat.engine import rendering, sandbox
from nomoat.errors import UnsupportedError

AGAIN_AND_AGAIN = "{% set ns = namespace(x=BEGUN) %}{% for i in range(99) %}{% set ns.x = STEP %}{% endfor %}{{ ns.x }}"
REFUSED = r"template fails: (it |No filter named )"


@pytest.mark.parametrize(
    ("begun", "step"),
    [
        ("'aa'", "ns.x ~ ns.x"), ("'aa'", "ns.x + ns.x"), ("'aa'", "ns.x * 2"), ("'aa'", "[ns.x, ns.x] | join"),
        ("'aa'", "''.join([ns.x, ns.x])"), ("'aa'", "ns.x.join('abc')"), ("'aa'", "'abc' | join(ns.x)"),
        ("'aa'", "'%s%s' % (ns.x, ns.x)"), ("'aa'", "'%s%s' | format(ns.x, ns.x)"), ("'aa'", "'{0}{0}'.format(ns.x)"),
        ("'aa'", "'{a}{a}'.format_map({'a': ns.x})"), ("'aa'", "ns.x | replace('a', ns.x)"), ("'aa'", "ns.x.replace('a', ns.x)"),
        ("'aa'", "ns.x.translate({97: ns.x})"), ("'a\na'", "ns.x | indent(ns.x)"), ("'a a'", "ns.x | wordwrap(1, wrapstring=ns.x)"),
        ("'\"'", "ns.x | tojson"), ("[1]", "ns.x + ns.x"), ("[1]", "[ns.x, ns.x]"), ("[1]", "(ns.x, ns.x)"),
        ("[1]", "{'a': ns.x, 'b': ns.x}"), ("{'a': 1}", "{'a': ns.x.values(), 'b': ns.x.items()}"),
        ("namespace(a=1)", "namespace(a=ns.x, b=ns.x)"), ("'a'", "([ns.x, ns.x] | upper)"), ("3", "ns.x * ns.x"),
    ],
)  # fmt: skip
def test_a_template_that_doubles_what_it_has_ends(begun: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it takes more memory than it may."""
    monkeypatch.setattr(sandbox, "MOST_BYTES", 2_000_000)
    template = AGAIN_AND_AGAIN.replace("BEGUN", begun).replace("STEP", step)
    require_refused(template, REFUSED, most_bytes=4_000_000)


def require_refused(template: str, words: str, most_bytes: int, **told: Any) -> None:
    """That a template is stopped with these words, and has had no more memory than that."""
    rendering.render("{{ 1 }}")  # what is imported for it is not the template's
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedError, match=words):
            rendering.render(template, **told)
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def grown(begun: str, times: int) -> str:
    return f"{{% set ns = namespace(x={begun}) %}}{{% for i in range({times}) %}}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}"


@pytest.mark.parametrize(
    "template",
    [
        grown("'aa'", 17) + "{{ [" + "ns.x[1:]," * 60 + "] | length }}",
        grown("'aa'", 17) + "{% set ns.l = [] %}{% for i in range(99) %}{% set ns.l = [ns.x[1:], ns.l] %}{% endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [1, ns.l, [0, 0, 0, 0, 0, 0, 0, 0, 0]] %}{% endfor %}",
        grown("'\\t'", 14) + "{{ ns.x.expandtabs(1000) | length }}",
        grown("'bcd'", 16) + "{{ ns.x.split('b') | length }}", grown("'b '", 16) + "{{ ns.x.split() | length }}",
        grown("'b\\n'", 16) + "{{ ns.x.splitlines() | length }}", grown("'b '", 16) + "{{ ns.x | title | length }}",
        grown("'한'", 17) + "{{ ns.x | list | length }}", grown("'한'", 17) + "{{ ns.x | select | list | length }}",
        grown("'한'", 17) + "{{ ' '.join(ns.x) | length }}", grown("'한'", 17) + "{{ ns.x | sort | length }}",
        grown("'a'", 12) + "{{ ns.x.strip('b' ~ ns.x) }}", grown("'a'", 12) + "{{ ns.x | trim('b' ~ ns.x) }}",
        grown("'a'", 12) + "{{ ns.x.rfind('b' ~ ns.x) }}", grown("'a'", 12) + "{{ ns.x.rsplit('b' ~ ns.x) }}",
        grown("'<!---->'", 12) + "{{ ns.x | striptags }}", "{{ 'a'.encode('punycode') }}", "{{ [namespace(a=1)] }}",
        "{{ [range(9999) | list, range(9999) | list] | sum(start=[]) }}", "{{ ([[1]] * 99999) | select | select | list }}",
        "{{ 1 | round(-1000000) }}", "{{ 1 | round(500000, 'ceil') }}", grown("'ff'", 12) + "{{ ns.x | int(0, 16) > 0 }}",
        "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = -ns.x * ns.x // 1 %}{% endfor %}",
        "{{ 2 ** (2 ** (2 ** 20)) }}", "{{ ['a'] * 99999 | sort is lower }}", "{{ [] | tojson(indent=' ' * 9999) }}",
    ],
)  # fmt: skip
def test_what_could_be_many_times_as_long_as_what_it_is_made_of_is_counted_before(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "MOST_BYTES", 3_000_000)
    require_refused(template, REFUSED + "|No test named ", most_bytes=8_000_000)


MANY = "{% for i in range(99999) %}"


@pytest.mark.parametrize(
    "template",
    [
        MANY * 3 + 3 * "{% endfor %}", MANY * 2 + "{{ i }}" + 2 * "{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% for m in [1, 2] recursive %}{% if loop.depth < 99 %}{{ loop([1, 2]) }}{% endif %}{% endfor %}",
        MANY + "{{ 1 in [2] or 1 == 2 or 'a' is eq('b') }}{% endfor %}", "{{ range(99999)" + " | select" * 9 + " | sum }}",
    ],
)  # fmt: skip
def test_a_template_of_steps_without_end_ends(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_BYTES", 500_000)
    with pytest.raises(UnsupportedError, match="it makes more than 0 MB of texts, or loops as long: a shorter conversation may do"):
        rendering.render(template)
    monkeypatch.setattr(sandbox, "MOST_BYTES", 10**18)
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.0)
    with pytest.raises(UnsupportedError, match="it computes for more than 0 s: a shorter conversation may do"):
        rendering.render(template)


def paid(template: str, **told: Any) -> float:
    """Bytes that a rendering is counted for."""
    with sandbox.bounded():
        rendering._compiled(template).render(told)
        return sandbox.MOST_BYTES - sandbox._left.num_bytes


LATER_TURNS = (
    "{% for m in messages %}{% set ns = namespace(found=false) %}{% for later in messages[loop.index:] %}"
    "{% if later.role == 'assistant' and 'tool_calls' not in later %}{% set ns.found = true %}{% endif %}{% endfor %}{% endfor %}"
)
REGROUPED = "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}{% endfor %}{{ ns.l | length }}"


@pytest.mark.parametrize("template", [LATER_TURNS, REGROUPED])
def test_long_conversations_are_not_refused(template: str) -> None:
    """Templates that look at all later messages for each (gpt-oss), or put messages together anew."""
    messages = [{"role": "assistant", "content": "x" * 400, "tool_calls": []}] * 300
    assert paid(template, messages=messages) * 15**2 < sandbox.MOST_BYTES  # of 4,500 messages


@pytest.mark.parametrize(
    "template",
    [
        "{{ x }}", "{{ x | tojson }}", "{{ [x, x] | join }}", "{{ '%s' % x }}", "{{ '%s' | format(x) }}", "{{ '{}'.format(x) }}",
        "{{ x | replace('a', 'b') }}", "{{ x.replace('a', 'b') }}", "{{ x | upper }}", "{{ x[1:] }}", "{{ x ~ x }}", "{{ x + x }}",
        "{{ x.strip() }}", "{{ x | trim }}", "{{ x.split('a') | first }}", "{{ x | string | safe | default('') }}",
    ],
)  # fmt: skip
def test_what_is_made_is_counted_once(template: str) -> None:
    """And once more where it is put into the prompt."""
    few, many = (paid(template, x="x" * length) for length in (1000, 101_000))
    assert 100_000 <= many - few <= 400_000


def test_a_template_read_while_another_is_rendered_leaves_it_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_BYTES", 100_000)
    template = MANY + "{% if loop.first %}{{ read() }}{% endif %}{% endfor %}"
    with pytest.raises(UnsupportedError, match="or loops as long"):
        rendering.render(template, read=lambda: len(rendering.variables_of("{{ another }}")))


@pytest.mark.parametrize("template", ["{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "{{ " + "1" * 5000 + " }}", "{% if %}"])
def test_of_what_is_no_template_no_variables_are_read(template: str) -> None:
    assert rendering.variables_of(template) == frozenset()


def test_what_chat_templates_use_is_there() -> None:
    assert rendering.render("{{ 'a-b-a' | replace('a', 'c', count=none) }}{{ ('  ' * 2 + 'x') | trim }}{{ {'k': 1}.keys() }}") == (
        "c-b-cxdict_keys(['k'])"
    )
    assert rendering.render("{{ [3, 1] | sort }}{{ {'b': 1, 'a': 2} | dictsort }}{{ 2.5 | round | int }}{{ 'a b' | title }}") == (
        "[1, 3][('a', 2), ('b', 1)]2A B"
    )
    assert rendering.render(
        "{{ [1, 2] | sum }}{{ [{'x': 3}] | sum(attribute='x') }}{{ 'a\nb' | indent(2) }}{{ none }}{{ '<' | e }}"
    ) == ("33a\n  bNone&lt;")
