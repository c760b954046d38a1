"""Which part of an answer is its code, and whether it passes."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Sequence

import pytest

from nomoat import hardware
from nomoat.catalog.datasets import pull_dataset
from nomoat.judge import builtin, code, code_tasks, sandbox
from nomoat.judge.examples import asked, code_target
from nomoat.records import Example

walled = pytest.mark.skipif(sandbox.missing_wall() != "", reason=f"this machine walls nothing off: {sandbox.missing_wall()}")


def passed(pairs: Sequence[tuple[Example, str]], *, chat: bool) -> list[bool]:
    return [ran.passed for ran in code.run_answers(pairs, chat=chat)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("x = 1", "x = 1"),
        ("Sure!\n```python\nx = 1\n```\nThis sets x.", "x = 1"),
        ("```\nx = 1\n```\n```\nx = 2\n```", "x = 1"),
        ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 1"),
        ("```bash\nls\n```\n```Python\nx = 1\n```", "x = 1"),
        ("```\npip install x\n```\n```\nx = 1\n```\nthen\n```\nx = 2\n```", "x = 1"),
        ("```\n```\n```\nx = 1\n```", "x = 1"),
        ("```sh\nls\n```\n```\nx = 1\n```", "x = 1"),
        ("```sh\nls\n```\n```Python3.11\nx = 1\n```", "x = 1"),
        ("```\nx = = 1\n```\n```\ny = (\n```", "x = = 1"),
        ("```\ndef f(x):\n    return x\n```\nUsage:\n```python\nprint(f(1))\n```", "def f(x):\n    return x"),
        ("```python\nprint(f(1))\n```\n```python\nf = lambda x: x\n```", "f = lambda x: x"),
        ("Yours was:\n```\ndef f(x):\n    pass\n```\nBetter:\n```python\ndef f(x):\n    return x\n```", "def f(x):\n    return x"),
        ("```python\nx = 1\n", "x = 1"),  # cut at the limit of new tokens
        ("```py\r\nx = 1\r\n```", "x = 1"),
        ("```python\ndef f():\n    return 1\n\nprint(f())\nassert f() == 2\n```", "def f():\n    return 1"),
        ("```python\ndef f():\n    return 1\n\nprint(f())  # one,\n     two\n```", "def f():\n    return 1"),
        ("```python\nimport math\n\ndef f():\n    return math.", "import math"),
        ("def f(:", "def f(:"),
        ("~~~python\nx = 1\n~~~\nThis sets x.", "x = 1"),
        ("```sh\nls\n```\n``` python\nx = 1\n```", "x = 1"),
        ('```python title="a.py"\nx = 1\n```', "x = 1"),
        ("```python:a.py\nx = 1\n```", "x = 1"),
        ("```{.python .numberLines}\nx = 1\n```", "x = 1"),
        ("```python-traceback\nboom\n```\n```python\nx = 1\n```", "x = 1"),
        ("````python\nx = 1\n# ```\n````", "x = 1"),
        ('````python\nx = """\n```\n"""\n````', "x = '\\n```\\n'"),
        ("1. So:\n\n   ```python\n   def f(x):\n       return x\n   ```\n2. Done.", "def f(x):\n    return x"),
        (
            '```python\ndef f():\n    """As\n    ```\n    f()\n    ```\n    """\n    return 1\n```',
            'def f():\n    """As\n    ```\n    f()\n    ```\n    """\n    return 1',
        ),
        ("Sure! Here it is:\n\ndef f(x):\n    return x\n\nIt returns x.", "def f(x):\n    return x"),
        ("다음은 함수입니다.\nfrom math import pi\n\ndef f(x):\n    return pi", "from math import pi\n\ndef f(x):\n    return pi"),
        ("x = 1\nimport math", "x = 1\nimport math"),
        ("    ```python\ndef f(x):\n    return x\n    ```", "def f(x):\n    return x"),
        ("  ```python\n def f(x):\n   return x\n  ```", "def f(x):\n    return x"),
        ("```sh\nls\n    ```\n```python\nx = 1\n```", "x = 1"),
        ("````markdown\n```python\nx = 1\n```\n````", "x = 1"),
        ("~~~\n```python\nx = 1\n```\n~~~", "x = 1"),
        ("```markdown\n```python\nx = 1\n```\n```", "x = 1"),
        ("Solution\n~~~~~~~~\n\n```python\nx = 1\n```", "x = 1"),
        (
            'def f():\n    """As\n    ~~~\n    1\n    """\n    return 1\n\nIt is 1!',
            'def f():\n    """As\n    ~~~\n    1\n    """\n    return 1',
        ),
        ('x = """\n~~~\n"""', "x = '\\n~~~\\n'"),
        ("def f(x):\n    return x\n\nUse it:\n\n```python\nf(1)\n```", "def f(x):\n    return x"),
        ("So:\n\ndef f(x):\n    return x\n\n    x + y\n    ~~^~~\n", "def f(x):\n    return x\n    x + y"),
        ("```python\n" * 3000, ""),
        ("Solution\n\ndef f(x):\n    return x", "def f(x):\n    return x"),
        ("정답\r\nimport math\r\n\r\ndef f(x):\r\n    return x", "import math\n\ndef f(x):\n    return x"),
        ("```code\nN = 1\n\ndef f(x):\n    return N\n```", "N = 1\n\ndef f(x):\n    return N"),
        ("```python\nfrom typing List\n\ndef f(x):\n    return x\n```", "from typing List\n\ndef f(x):\n    return x"),
        ("```\nx = = 1\ndef f(x):\n    return x\n```", "x = = 1\ndef f(x):\n    return x"),
        ('```python\nx = """\ndef f():\n    return 1\n"""\n```', "x = '\\ndef f():\\n    return 1\\n'"),
        ("```\n5\n```\nIt is 5.", "5"),
        ("print(5)", "print(5)"),
    ],
)
def test_code_is_the_first_block_of_python_without_its_own_examples(answer: str, expected: str) -> None:
    assert code.code_in(answer).strip() == expected


def test_calls_that_a_function_may_need_are_kept_and_what_only_shows_its_use_is_not() -> None:
    needed = "import sys\nsys.setrecursionlimit(9000)\nprimes = []\n\ndef fill():\n    primes.append(2)\nfill()\n"
    asked = "\ndef is_prime(n):\n    return n in primes"
    shown = "'Primes.'\nprint(primes)\nassert primes == [3]\n"
    assert code.code_in(f"{needed}{shown}{asked}\nresult = is_prime(2)\nis_prime('2')\nprint(result)") == (
        f"{needed}{asked}\nresult = is_prime(2)"
    )


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("x = []\nx.append(1)\nprint(x)", "x = []\nx.append(1)"),
        ("data = {}\ndata.update(a=1)\nsolve = lambda: data['a']\nsolve()", "data = {}\ndata.update(a=1)\nsolve = lambda: data['a']"),
        (
            "def f():\n    return x\nx = []\nx.append(1)\ng: F = lambda: x",
            "def f():\n    return x\nx = []\nx.append(1)\ng: F = lambda: x",
        ),
    ],
)
def test_without_a_function_calls_are_kept_and_a_lambda_with_a_name_is_one(answer: str, expected: str) -> None:
    assert code.code_in(answer) == expected


@pytest.mark.parametrize("value", ["+".join(["1"] * 400), f"0x{'f' * 5000}"])
def test_code_that_python_cannot_write_out_again_is_taken_as_it_is(value: str) -> None:
    answer = f"x = {value}\nprint(x)\n"
    assert code.code_in(f"```python\n{answer}```") == answer


@pytest.mark.parametrize(
    ("target", "chat", "is_broken"),
    [
        ("{answer}\nassert f(1) == 1", True, False),
        ("class A:\n{answer}\nassert A().f() == 1", True, False),
        ("x = {answer}\nassert x == 1", True, False),
        ("class A:\n    def f(self):\n{answer}\nassert A().f() == 1", True, False),
        ("class A:\n\tdef f(self):\n{answer}\n\t\treturn 1", True, False),
        ("def f(x):\n{answer}\n  return x", True, False),
        ("import functools\n@functools.cache\n{answer}\nassert f(1) == 1", True, False),
        ("assert 's'.{answer}() == 'S'", True, False),
        ("assert 1 {answer} 2 == 3", True, False),
        ("assert f(1) == 1", True, True),
        ("{answer}\nassert f(1) = 1", True, True),
        ("{answer}\nconsole.assert(f(1) === 1)", True, True),
        ("x = max({answer}\nassert x == 1", False, False),
        ("assert f(1) == 1", False, True),
    ],
)
def test_a_target_of_code_is_a_python_program_with_a_place_for_the_answer(target: str, chat: bool, is_broken: bool) -> None:
    assert bool(code.broken_program(target, chat=chat)) == is_broken


@walled
@pytest.mark.parametrize(
    ("target", "passes"),
    [
        ("{answer}\nassert f(1) == 1", False),
        ("{answer}\ndef test_f():\n    assert f(1) == 1", True),
        ("{answer}\nif __name__ == '__main__':\n    assert f(1) == 1", True),
    ],
)
def test_tests_that_nothing_calls_pass_without_an_answer(target: str, passes: bool) -> None:
    assert code.passes_unanswered(target) == passes


@walled
def test_tests_that_end_only_by_an_answer_are_not_tried_for_long() -> None:
    """Of an answer they may take five seconds, here one, many times over."""
    tasks = [Example(id=str(at), messages=[], target=f"x = {at}\n{{answer}}\nwhile x < 9: pass") for at in range(2)]
    begun = time.monotonic()
    assert code.passing_unanswered(tasks) == {"0": False, "1": False}
    assert time.monotonic() - begun < 5


def test_a_continuation_ends_at_a_fence() -> None:
    assert code.continued_code("    return 1\n```\nThis returns 1.") == "    return 1\n"


@walled
def test_answer_is_put_to_its_tests() -> None:
    example = Example(id="1", messages=asked("add"), target=code_target(before="import math", after="assert add(1, 2) == 3"))
    answers = ["```python\ndef add(a, b):\n    return a + b\n```", "def add(a, b): return math.prod((a, b))", "I cannot.", ""]
    assert code.run_answers([(example, answer) for answer in answers], chat=True) == [
        sandbox.Ran(outcome="passed"),
        sandbox.Ran(outcome="failed", said="AssertionError (line 4: assert add(1, 2) == 3)"),
        sandbox.Ran(outcome="failed", said="SyntaxError: invalid syntax (answer.py, line 2)"),
        sandbox.Ran(outcome="failed", said="NameError: name 'add' is not defined (line 3: assert add(1, 2) == 3)"),
    ]


@walled
def test_an_answer_that_imports_from_the_future_is_put_to_its_tests_with_the_import_first() -> None:
    target = code_target(before="import math", after="assert first(Pair()) == 3")
    example = Example(id="1", messages=asked("first"), target=target)
    imported = '"""A pair."""\nfrom __future__ import annotations\n'
    body = "def first(pair: Pair) -> int:\n    return 3\n\nclass Pair: ...\n"
    assert passed([(example, f"```python\n{imported}{body}```")], chat=True) == [True]
    assert passed([(example, imported)], chat=True) == [False]


@walled
def test_an_answer_may_pass_any_of_its_examples_targets() -> None:
    example = Example(
        id="1", messages=asked("add"), target="{answer}\nassert add(1, 2) == 3", other_targets=("{answer}\nassert plus(1, 2) == 3",)
    )  # fmt: skip
    answers = [f"def {name}(a, b): return a + b" for name in ("add", "plus", "sum")]
    ended = code.run_answers([(example, answer) for answer in answers], chat=True)
    assert [ran.passed for ran in ended] == [True, True, False]
    assert ended[2].said == "NameError: name 'add' is not defined (line 3: assert add(1, 2) == 3)"


def test_what_python_warns_of_in_an_answer_is_neither_shown_nor_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 would show it at each answer with such a pattern. Where warnings are errors, it would be no Python."""
    programs: list[str] = []

    def run_python(program: str) -> sandbox.Ran:
        programs.append(program)
        return sandbox.Ran(outcome="passed")

    monkeypatch.setattr(sandbox, "run_python", run_python)
    answer = "import re\n\ndef digits(text):\n    return re.findall('\\d', text)\n\nassert digits('1') == 1"
    example = Example(id="1", messages=asked("digits"), target="{answer}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert passed([(example, answer)], chat=True) == [True]
    assert programs == ["import re\n\ndef digits(text):\n    return re.findall('\\\\d', text)"]


def test_as_many_programs_run_at_once_as_there_are_cpus_in_a_containers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def run_python(_program: str) -> sandbox.Ran:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return sandbox.Ran(outcome="passed")

    monkeypatch.setattr(sandbox, "run_python", run_python)
    monkeypatch.setattr(hardware, "allowed_cores", lambda: set(range(4)))
    monkeypatch.setattr(hardware, "cpus", lambda: 1)
    example = Example(id="1", messages=asked("x"), target=code_target(before="", after=""))
    assert passed([(example, "x = 1")] * 6, chat=True) == [True] * 6
    assert most == 1


@walled
@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("mirror")
def test_every_canonical_solution_of_humaneval_passes_and_no_empty_one() -> None:
    folder = pull_dataset("humaneval")
    rows = code_tasks.humaneval_rows(folder)
    chat, base = builtin.BUILT_IN["humaneval"], builtin.BUILT_IN["humaneval-base"]
    fenced = [f"```python\n{row['prompt']}{row['canonical_solution']}\n```" for row in rows]
    assert sum(passed(list(zip(chat.read(folder), fenced, strict=True)), chat=True)) == 164
    bodies = [row["canonical_solution"] for row in rows]
    assert sum(passed(list(zip(base.read(folder), bodies, strict=True)), chat=False)) == 164
    assert sum(passed([(example, "    return None\n") for example in base.read(folder)], chat=False)) == 0
