"""Chat templates are programs that anybody may have made: what they may take, and that honest ones are not refused."""

import time
import tracemalloc
from typing import Any

import pytest

from nomoat.engine import rations, rendering
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
    monkeypatch.setattr(rations, "MOST_BYTES", 2_000_000)
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
    monkeypatch.setattr(rations, "MOST_BYTES", 3_000_000)
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
    monkeypatch.setattr(rations, "MOST_BYTES", 500_000)
    with pytest.raises(UnsupportedError, match="it makes more than 0 MB of texts, or loops as long: a shorter conversation may do"):
        rendering.render(template)
    monkeypatch.setattr(rations, "MOST_BYTES", 10**18)
    monkeypatch.setattr(rations, "MOST_SECONDS", 0.0)
    with pytest.raises(UnsupportedError, match="it computes for more than 0 s: a shorter conversation may do"):
        rendering.render(template)


def doubled(name: str, step: str, begun: str) -> str:
    """40 times two of what is there: a list that nothing walks through to its end."""
    step = step.replace("X", f"{name}.x")
    return f"{{% set {name} = namespace(x={begun}) %}}{{% for i in range(40) %}}{{% set {name}.x = {step} %}}{{% endfor %}}"


def nested(name: str, step: str, begun: str) -> str:
    return doubled(name, step, begun).replace("range(40)", "range(20000)")


LISTS = doubled("a", "[X, X]", "[1]") + doubled("b", "[X, X]", "[1]")
TUPLES = doubled("a", "(X, X)", "(1,)") + doubled("b", "(X, X)", "(1,)")
DICTS = doubled("a", "{'a': X, 'b': X}", "{'a': 1}") + doubled("b", "{'a': X, 'b': X}", "{'a': 1}")
DEEP = nested("a", "[X]", "[1]") + nested("b", "[X]", "[1]")
ALIKE = "{% set n = namespace(l=[]) %}{% for i in range(9000) %}{% set n.l = n.l + [STEP] %}{% endfor %}"
ONE_PLACE = "i * 2305843009213693951"  # numbers of one hash


@pytest.mark.parametrize(
    "template",
    [
        *(LISTS + f"{{{{ {said} }}}}" for said in (
            "a.x == b.x", "a.x != b.x", "a.x < b.x", "1 < 2 == (a.x >= b.x)", "a.x in [b.x]", "a.x not in (b.x,)", "a.x is eq(b.x)",
            "a.x is in([b.x])", "[a.x] | select('eq', b.x) | list", "[{'k': a.x}] | rejectattr('k', '==', b.x) | list",
            "[a.x].index(b.x)",
            "[a.x].count(b.x)", "[a.x, b.x] | sort", "[a.x, b.x] | max", "{'a': a.x, 'b': b.x} | dictsort(by='value')", "a.x",
            "a.x ~ 1",
            "a.x | tojson", "[a.x] | join", "'%s' % a.x", "'%s' | format(a.x)", "'{0!r}'.format(a.x)", "a.x | string", "a.x | upper",
            "raise_exception(a.x)", "{}[a.x].y", "namespace(unsafe_callable=1, x=a.x)()", "({'a': a.x} | dictsort)[0] == ('a', b.x)",
            "namespace(unsafe_callable=1, x=a.x, __wrapped__=''.strip)()", "{1: a.x}.values() | list == [b.x]",
        )),
        LISTS + "{% for i in [1, 2] %}{{ loop.changed(a.x if loop.first else b.x) }}{% endfor %}",
        *(TUPLES + f"{{{{ {said} }}}}" for said in (
            "a.x == b.x", "{a.x: 1}", "{}[a.x]", "{}.get(a.x)", "a.x in {}", "dict([(a.x, 1)])", "namespace([(a.x, 1)])",
            "{}.fromkeys([a.x])", "[a.x, b.x] | unique | list", "{}.keys() - [a.x]", "{}.keys().isdisjoint([a.x])", "a.x is filter",
            "dict[a.x]", "dict.foo([(a.x, 1)])", "{}[a.x:1]",
        )),
        *(DICTS + f"{{{{ {said} }}}}" for said in (
            "a.x == b.x", "a.x in {1: b.x}.values()", "{1: a.x}.items() == {1: b.x}.items()", "(1, a.x) in {1: b.x}.items()",
            "{1: a.x}.items() <= {1: b.x}.items()",
        )),
        *(DEEP + f"{{{{ {said} }}}}" for said in ("a.x == b.x", "a.x", "a.x | tojson", "[a.x, b.x] | sort")),
        nested("a", "X | select", "[1]") + "{{ a.x | list }}", nested("a", "(X,)", "(1,)") + "{{ {a.x: 1} }}",
        ALIKE.replace("STEP", ONE_PLACE) + "{{ n.l | unique | list }}", ALIKE.replace("STEP", f"[{ONE_PLACE}, 1]") + "{{ dict(n.l) }}",
        "{{ '%1900000000d' is odd }}", "{{ '%1900000000d' is divisibleby(1) }}", "{{ ['%1900000000d'] | select('even') | list }}",
        "{{ ('%999d' * 1000000) % ((1,) * 1000000) }}", "{{ ('%(' * 30000) % 1 }}", "{{ ('{}' * 1000000).format() }}",
        "{{ ('{0' ~ '.real' * 2000000 ~ '}').format(1) }}", "{{ ('{:' ~ '1 ' * 5000000 ~ '}').format(1) }}",
        "{{ 'a'" + " | replace('a', 'aaaaaaaaaa')" * 7 + " | list | length }}", "{{ ([3, 1, 2] * 4000000) | sort | length }}",
        "{{ ('a' * 2000000).startswith(('a' * 1000000 ~ 'b' ~ 'a' * 999999,) * 10000) }}",
        "{{ ['a' * 1000000 ~ 'b'] * 100000 == ['a' * 1000000 ~ 'b'] * 100000 }}",
        "{{ ('a' * 1000000 ~ 'b') in ['a' * 1000000 ~ 'c'] * 1000000 }}",
        "{{ ([1] * 99999) | map(attribute='real.' * 99999) | list }}",
        "{{ ([1] * 99999) | max(attribute='real.' * 99999 ~ 'real') }}",
        "{{ ([1] * 99999) | join(attribute='real.' * 99999 ~ 'real') }}",
        "{% for c in [0] * 9000000 if false %}{% endfor %}", "{{ ([0] * 9000000) | select | list }}",
        "{{ cycler(*(['a' * 999999] * 99) | join) }}", "{{ (['é' * 999999] * 40) | join | upper | length }}",
        "{{ ((['a' * 999999] * 90) | join ~ '😀') | length }}", "{{ [(['\x00' * 999999] * 90) | join] | string | length }}",
        "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{{ dict.update(messages[0], {'role': 'system'}) }}",
        "{{ 'a' }}" + " " * 200_000,
    ],
)  # fmt: skip
def test_no_step_of_a_template_takes_a_second_or_more_memory_than_it_may(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused soon after its time, of which it has a fifth of a second here, is over."""
    monkeypatch.setattr(rations, "MOST_SECONDS", 0.2)
    rendering.render("{{ 1 }}")
    messages = [{"role": "user"}]
    tracemalloc.start()
    begun = time.thread_time()
    try:
        with pytest.raises(UnsupportedError) as refused:
            rendering.render(template, messages=messages)
        assert time.thread_time() - begun < 4  # tracemalloc makes it slower
        assert tracemalloc.get_traced_memory()[1] < 900_000_000
    finally:
        tracemalloc.stop()
    assert len(refused.value.message) < 1200 and messages == [{"role": "user"}]


@pytest.mark.parametrize(
    "said",
    [
        "[1, [2, 'a']] == [1, [2, 'a']]", "[1, [2, 'a']] != [1, [2, 'b']]", "{'a': [1]} == {'a': [1]}", "{'a': 1} != {'b': 1}",
        "(1, 2) < (1, 3)",
        "[1] < [1, 2]", "not [1, 2] <= [1]", "[2] > [1, 9]", "1 < 2 < 3", "not 3 > 2 > 2", "[1] in [[1]]", "[2] not in [[1]]",
        "'b' in 'abc'",
        "2 in [1, 2.0]", "'a' in {'a': 1}", "[1] in {'a': [1]}.values()", "3 in range(5)", "x not in y", "x == y",
        "[1] == [1] | select | list",
        "[[1], [2]].index([2]) == 1", "[1, 2, 1].index(1, 1) == 2", "[[1], [1]].count([1]) == 2", "'ab'[1:] == 'b'",
        "[1, 2, 3][::-1] == [3, 2, 1]",
        "{'a': 1}[[1]] is undefined",
        "{'a': 1}.get('a') == 1", "[1, 1.0, 'A', 'a'] | unique | list == [1, 'A']", "dict([['a', 1]], b=2) == {'a': 1, 'b': 2}",
        "namespace({'a': 1}).a == 1", "cycler(*[1, 2]).current == 1", "3 is odd", "'upper' is filter",
        "['b', 'a'] | sort == ['a', 'b']", "[{'k': 2}, {'k': 1}] | map(attribute='k') | max == 2", "[1] is eq([1])", "[] | select",
    ],
)  # fmt: skip
def test_comparisons_and_look_ups_are_those_of_python(said: str) -> None:
    assert rendering.render(f"{{{{ 'yes' if ({said}) else 'no' }}}}") == "yes"


def paid(template: str, **told: Any) -> float:
    """Bytes that a rendering is counted for."""
    with rations.bounded():
        rendering._compiled(template).render(told)
        return rations.MOST_BYTES - rations._left.num_bytes


LATER_TURNS = (
    "{% for m in messages %}{% set ns = namespace(found=false) %}{% for later in messages[loop.index:] %}"
    "{% if later.role == 'assistant' and 'tool_calls' not in later %}{% set ns.found = true %}{% endif %}{% endfor %}{% endfor %}"
)
REGROUPED = "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}{% endfor %}{{ ns.l | length }}"


@pytest.mark.parametrize("template", [LATER_TURNS, REGROUPED])
def test_long_conversations_are_not_refused(template: str) -> None:
    """Templates that look at all later messages for each (gpt-oss), or put messages together anew."""
    messages = [{"role": "assistant", "content": "x" * 400, "tool_calls": []}] * 300
    assert paid(template, messages=messages) * 15**2 < rations.MOST_BYTES  # of 4,500 messages


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
    monkeypatch.setattr(rations, "MOST_BYTES", 100_000)
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
