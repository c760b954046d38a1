"""How a teacher is asked for tasks, and how its answer becomes tasks again.

The manner is Alpaca's (tatsu-lab/stanford_alpaca, Apache-2.0): some examples, numbered, and the wish for more of them that differ.
The words are our own. Chat models number and decorate their answers in many ways: the fields are known by their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nomoat import matching

NO_INPUT = "<noinput>"
EMPTY_INPUTS = {
    "noinput", "none", "n/a", "no input", "no input needed", "no input required", "no input necessary", "not applicable", "empty",
    "null", "-", "–", "—",
    "없음", "입력 없음", "입력없음", "해당 없음", "해당없음", "필요 없음", "필요없음", "입력 필요 없음", "입력 필요없음",
    "입력필요없음", "없습니다", "필요하지 않음", "필요하지않음", "불필요",
    "无", "無", "无输入", "なし", "入力なし",
}  # fmt: skip
AROUND_INPUTS = "*_`\"'. <>()[]"
EMPTY_QUOTES = {'""', "''", "``", "“”", "‘’"}
# The names of the fields. One that is usual in texts counts only where an answer has no other for that field. Of a JSON object that
# has several for a field the first counts.
FIELDS = {
    "instruction": "instruction", "지시": "instruction", "지시문": "instruction", "지시사항": "instruction",
    "지시 사항": "instruction", "指令": "instruction", "指示": "instruction", "task": "instruction",
    "input": "input", "입력": "input", "输入": "input", "輸入": "input", "入力": "input",
    "output": "output", "출력": "output", "输出": "output", "輸出": "output", "出力": "output",
}  # fmt: skip
USUAL_WORDS = {
    "지시어": "instruction", "지침": "instruction", "명령": "instruction", "명령문": "instruction", "명령어": "instruction",
    "요청": "instruction", "과제": "instruction", "작업": "instruction", "질문": "instruction",
    "question": "instruction", "prompt": "instruction", "q": "instruction",
    "context": "input", "입력값": "input", "입력 내용": "input", "입력 텍스트": "input",
    "출력값": "output", "출력 결과": "output",
    "answer": "output", "expected output": "output", "response": "output", "result": "output", "completion": "output", "a": "output",
    "결과": "output", "답변": "output", "응답": "output", "답": "output", "回答": "output", "答案": "output",
}  # fmt: skip
FIELD_OF = {**FIELDS, **USUAL_WORDS}
# A teacher may get stuck and write one line of thousands of signs. What repeats gives nothing back (`*+`, `(?>…)`), or the time would
# grow with the square of the line's length; and int() takes no number of thousands of digits.
A_TASK = "(?:task|example|과제|작업|예시|예제)"  # as headings count it
NUMBER = rf"(?:{A_TASK}\s*+)?(?:(?P<number>\d{{1,9}})\s*+번?[.):：]?)?"
NAMES = "|".join(FIELD_OF)
# Behind the name a colon, or brackets or a second name around it ("[지시]", "지시(Instruction):"), or nothing, where it is a heading.
FIELD = re.compile(
    rf"^\s*+(?P<mark>#{{1,6}}+|\*\*)?+[\s#*_>•·-]*+{NUMBER}[\s*_#]*+(?P<open>[\[【])?<?(?P<name>{NAMES})"
    rf"(?:\s*+#?(?P<behind>\d{{1,9}}))?(?:\s*+\((?:{NAMES})\))?>?(?(open)[\]】])\s*+(?:\*\*|__)?\s*+"
    r"(?:(?P<colon>[:：])(?:\*\*|__)?|(?(open)|(?(mark)(?=\s*+$)|(?!))))[ \t]*(?P<text>.*)$",
    re.IGNORECASE,
)
RULE = re.compile(r"^\s*+(?:#{2,}+|-{3,}+|\*{3,}+)?\s*+$")
HEADING = re.compile(
    rf"^\s*+(?P<mark>(?P<hash>#{{1,6}}+)?\s*+(?:\*\*)?)(?P<task>{A_TASK}\s*+)?(?P<number>\d{{1,9}})(?P<counted>번\s*+{A_TASK})?"
    r"(?(task)[.):：]?|(?(counted)[.):：]?|(?(hash)[.):：]?|[.):：])))(?:\*\*)?[.:：]?\s*+$",
    re.IGNORECASE,
)
TITLE = re.compile(  # "### Task 4: Colours"
    rf"^\s*+(?:#++\s*+(?:\*\*)?|\*\*){A_TASK}\s*+(?P<number>\d{{1,9}})\s*+[.):：-].*$", re.IGNORECASE
)
BARE_TITLE = re.compile(  # "### 4. Colours", "**4. Colours**"
    r"^\s*+(?P<hash>#++\s*+)?(?P<bold>\*\*)?(?P<number>\d{1,9})[.):：](?!\d).*(?(hash)|(?(bold)(?<=\*\*)|(?!)))\s*+$"
)
NUMBERED = re.compile(r"^\s*+(?:#++\s*+)?(?:\*\*)?(?P<number>\d{1,9})[.):：](?!\d)(?:\*\*)?\s*+(?P<text>.*)$")
FENCE = re.compile(r"^\s*```\w*\s*$")
CLOSING_FENCE = re.compile(r"^\s*```\s*$")
# What is said to whoever asked, behind the last task: only the hope that the tasks are of use, or an offer of more. Letters and plans
# speak of tasks as well, and nothing may be taken from them: what is doubtful stays.
OFFERED = (
    r"\b(?:(?:need|want|like)(?:[ \t]+me[ \t]+to[ \t]+(?:write|create|generate|make|provide|add|give[ \t]+you))?"
    r"|ask(?:[ \t]+me)?(?:[ \t]+for)?|request)(?:[ \t]+(?:any|some))?"
    r"[ \t]+(?:more|other|additional|further|different)[ \t]+(?:\w+[ \t]+)?(?:tasks|examples)\b"
)
CLOSING_WORDS = re.compile(
    r"\s*+(?:(?:I[ \t]+(?:hope|trust)|hope|hopefully)\b(?>.*?\b(?:these|those)[ \t]+(?:\w+[ \t]+)?(?:tasks|examples)\b)"
    r".*\b(?:help|helps|helpful|useful|meet|suit|fit|are what)\b"
    rf"|(?:(?:please[ \t]+)?let me know|feel free|would you|if you\b(?=.*\b(?:let me know|feel free|just ask)))\b.*{OFFERED}"
    r"|(?:이|위의?|이상의?)[ \t]*(?:과제|예시|예제)(?>.*?도움이 되).*(?:바라|바랍|좋겠)"
    r"|(?=.*(?:과제|예시|예제))(?>.*?(?:더|추가(?:로|적인)?)[ \t])(?>.*?필요하시?(?:면|다면)).*(?:말씀|알려))",
    re.IGNORECASE,
)

REQUEST = """These are {num_examples} tasks for a language model:

{examples}

Write {num_new} more of them.

- Each task is an instruction, an input where the instruction needs one, and the output of somebody who does it well.
- The tasks differ from each other and from the examples: in what has to be done, in the verb, in the subject, in their form.
  Questions, rewriting, summaries, classification, ideas, plans, stories, facts and reasoning all have their place.
- Whoever does them has text only: no image, sound or file is given or asked for, nobody acts in the world, nothing is looked up.
- The instruction is one or two sentences{language}.
- The input is a concrete text of at most 100 words, never a placeholder. Where none is needed, write {no_input}.
- The output is complete, true, and at most 100 words.

Write them in the form of the examples, numbered from {first_new} to {last_new}, and nothing else. Each has its three parts:

{first_new}. Instruction: {form.instruction}
Input: {form.input}, or {no_input}
Output: {form.output}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An instruction with its answer, as Alpaca's files hold them. `input` may be empty."""

    instruction: str
    input: str
    output: str


FORM = Task(instruction="what is to be done", input="the text it is done with", output="the result")  # which small teachers copy


def render_request(examples: Sequence[Task], num_new: int, *, language: str | None) -> str:
    """What the teacher is asked: the examples, and `num_new` tasks more, in `language` where one is named."""
    shown = [render_example(number, task) for number, task in enumerate(examples, start=1)]
    return REQUEST.format(
        num_examples=len(examples),
        num_new=num_new,
        language=f", in {language}, and so are input and output" if language else "",
        no_input=NO_INPUT,
        form=FORM,
        first_new=len(examples) + 1,
        last_new=len(examples) + num_new,
        examples="\n\n".join(shown),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """A line that begins a field. `number`: of the task, before or behind the name; `is_behind`: behind it ("Input 4:")."""

    field: str
    number: int | None
    is_behind: bool
    text: str


def parse_tasks(answer: str, *, is_cut: bool = False) -> list[Task]:
    """The tasks of an answer, in their order; what is missing of one is empty. They may be JSON objects.

    Of one that `is_cut`, the last is not whole: an empty one where they are objects, all of which are.

    A draft before them, a fence around them, and closing words that speak of them are no part of any. A numbered line in an output is
    part of it, unless it bears the next task's number, or an input or an output of its own follows.
    """
    answer = matching.without_draft(answer).replace("\r\n", "\n").rstrip()
    lines = _without_fence(_without_closing(answer.split("\n")))
    marks = _marks_of(lines)
    found: list[dict[str, list[str]]] = []
    field, text = "", [""]  # `text` takes the lines that begin no field
    number: int | None = None  # of the last task
    listed: int | None = None  # of the last line since that looks like the next one's
    for at, (line, mark) in enumerate(zip(lines, marks, strict=True)):
        given = mark.number if mark else None
        if mark and mark.field == "instruction" and _begins_task(mark, marks[at + 1 :], number, listed, is_first=not found):
            led = _cut_heading(text, number, is_numbered=given is not None, is_first=not found)
            number = given or led or (number + 1 if number else None)
            field, text, listed = mark.field, [mark.text], None
            found.append({"instruction": text, "input": [], "output": []})
        elif mark and found and _may_follow(mark.field, field) and not (mark.is_behind and given != number):
            field, text = mark.field, [mark.text]
            found[-1][field] = text
            listed = _number_of(FIELD.match(mark.text))
        else:
            listed = given if mark and mark.field == "instruction" else listed
            text.append(line)
    if found:
        return [_task(fields) for fields in found]
    if others := _json_tasks(answer):
        return [*others, Task(instruction="", input="", output="")] if is_cut else others
    named = _with_instructions(lines)
    return parse_tasks("\n".join(named)) if named else []


def _with_instructions(lines: Sequence[str]) -> list[str]:
    """The lines with "Instruction" in those that stand for one with their number alone, before an input or an output; none without.

    Where lines between two tasks have numbers, it is the last that has the next task's.
    """
    named, field, number = list(lines), "output", None
    candidate: tuple[int, re.Match[str]] | None = None
    is_any = False
    for at, line in enumerate(lines):
        if match := FIELD.match(line):
            if candidate and field == "output":
                number, is_any = int(candidate[1]["number"]), True
                named[candidate[0]] = f"{number}. Instruction: {candidate[1]['text'].strip().removesuffix('**')}"
            field, candidate = FIELD_OF[match["name"].lower()], None
        elif (match := NUMBERED.match(line)) and match["text"] and number in (None, int(match["number"]) - 1):
            candidate = at, match
    return named if is_any else []


def _begins_task(mark: _Mark, later: Sequence[_Mark | None], number: int | None, listed: int | None, *, is_first: bool) -> bool:
    """Whether an instruction begins a task, and is no line of a list. `number`: the last task's; `listed`: see `parse_tasks`."""
    has_own = next((other.field for other in later if other), "") in ("input", "output")
    follows = number is not None and mark.number == number + 1 and listed != number
    return mark.number is None or is_first or follows or (has_own and not mark.is_behind)


def _marks_of(lines: Sequence[str]) -> list[_Mark | None]:
    """Which field each line begins.

    `Task:` begins one only with a number before it, for lists of things to do say it, too; "Task 4: ..." does where the next field is
    an input or an output, and else is a title.
    """
    matches = [FIELD.match(line) for line in lines]
    begins = _beginnings(matches)
    marks: list[_Mark | None] = []
    after = ""  # the next field
    for at, match in reversed([*enumerate(matches)]):
        mark = None
        if match:
            name = match["name"].lower()
            field = FIELD_OF[name] if name == "task" or at in begins else ""
            if name == "task" and not match["number"] and not (match["behind"] and after in ("input", "output")):
                field = ""
            is_behind = match["behind"] is not None and match["number"] is None
            mark = _Mark(field=field, number=_number_of(match), is_behind=is_behind, text=match["text"]) if field else None
        after = mark.field if mark else after
        marks.append(mark)
    return marks[::-1]


def _beginnings(matches: Sequence[re.Match[str] | None]) -> set[int]:
    """Which lines begin a field: of a usual name only where the answer has no other for it, and of each task those of its
    instruction's form, where it has any.

    So neither a heading ("### Output") nor "[Output]" in a text is a field where the task's own is "Output:". An instruction has the
    first one's form, or a number and an output of its own form.
    """
    named = [(at, match, FIELD_OF[match["name"].lower()]) for at, match in enumerate(matches) if match]
    named = [(at, match, field) for at, match, field in named if match["name"].lower() != "task"]
    if _a_is_a_choice([match["name"].lower() for _, match, _ in named]):
        named = [(at, match, field) for at, match, field in named if match["name"].lower() != "a"]
    least = dict[str, int]()
    for _, match, field in named:
        least[field] = min(_how_usual(match), least.get(field, 2))
    named = [(at, match, field) for at, match, field in named if _how_usual(match) == least[field]]
    first = next((_is_bare(match) for _, match, field in named if field == "instruction"), False)
    begins, task, output = set[int](), list[tuple[int, str, bool]](), None
    for at, match, field in reversed(named):
        is_bare = _is_bare(match)
        output = is_bare if field == "output" else output
        is_instruction = field == "instruction"
        if not is_instruction or is_bare == first or (match["number"] and output == is_bare):
            task.append((at, field, is_bare))
            if is_instruction:
                begins |= _of_form(task, is_bare)
                task.clear()
        output = None if is_instruction else output
    return begins | _of_form(task, first)


def _a_is_a_choice(names: Sequence[str]) -> bool:
    """Whether "A:" is the first of several to choose from: unless all that is asked is "Q:", and not each has another output."""
    asked = [name for name in names if FIELD_OF[name] == "instruction"]
    return set(asked) != {"q"} or len(asked) <= sum(FIELD_OF[name] == "output" and name != "a" for name in names)


def _of_form(task: Sequence[tuple[int, str, bool]], form: bool) -> set[int]:
    """The lines of this form, and for a field without one the others."""
    found = {field for _, field, is_bare in task if is_bare == form}
    return {at for at, field, is_bare in task if is_bare == form or field not in found}


def _how_usual(match: re.Match[str]) -> int:
    """How usual a line's name is in texts, most of all that of a title ("과제 4: 낱말")."""
    usual = USUAL_WORDS.get(match["name"].lower())
    return bool(usual) + (usual == "instruction" and match["behind"] is not None)


def _is_bare(match: re.Match[str]) -> bool:
    """Whether a line's mark is no colon."""
    return match["open"] is not None or match["colon"] is None


def _without_closing(lines: list[str]) -> list[str]:
    """The lines without a last one, behind an empty one, that speaks of the tasks to whoever asked."""
    is_closing = len(lines) > 1 and not lines[-2].strip() and CLOSING_WORDS.match(lines[-1])
    return lines[:-1] if is_closing else lines


def _without_fence(lines: list[str]) -> list[str]:
    """The lines without a fence around all tasks, or around each, and what is said behind it. Fences inside of tasks stay."""
    marks = _marks_of(lines)
    begins = [at for at, mark in enumerate(marks) if mark and mark.field == "instruction"]
    opened = [at for at in (_leads(lines, begin) for begin in begins) if at is not None and FENCE.match(lines[at])]
    if not opened or opened[0] > begins[0] or any(mark for mark in marks[: opened[0]]):
        return lines
    dropped = {opened[0]}
    for at in opened[1:]:
        closed = _leads(lines, at)
        if closed is not None and CLOSING_FENCE.match(lines[closed]):
            dropped |= {closed, at}
    inside = [at for at, line in enumerate(lines) if FENCE.match(line) and at > max(dropped)]
    end = inside[-1] if len(inside) % 2 and inside[-1] > begins[-1] and CLOSING_FENCE.match(lines[inside[-1]]) else len(lines)
    return [line for at, line in enumerate(lines[:end]) if at not in dropped]


def _leads(lines: Sequence[str], at: int) -> int | None:
    """The last line before this one that is neither empty nor a heading."""
    return next((other for other in range(at - 1, -1, -1) if lines[other].strip() and not HEADING.match(lines[other])), None)


def _json_tasks(answer: str) -> list[Task]:
    """The JSON objects of an answer that have an instruction, in a list, one a line or inside another."""
    found, at, decoder = list[Task](), 0, json.JSONDecoder()
    while (at := answer.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            value, end = {}, at + 1
        if texts := _json_fields(value):
            found.append(_task({name: [_text_of(texts.get(name) or "")] for name in ("instruction", "input", "output")}))
            at = end
        else:
            at += 1
    return found


def _json_fields(value: dict[str, object]) -> dict[str, object]:
    """The fields of an object; none where it is no task: one that has only a word such as "task" in it may hold all of them."""
    named = {name.strip().lower(): one for name, one in value.items()}
    found = dict[str, object]()
    for name, field in FIELD_OF.items():
        if isinstance(named.get(name), str) or (field != "instruction" and named.get(name) is not None):
            found.setdefault(field, named[name])
    is_own = any(name in named for name, field in FIELDS.items() if field == "instruction" and name != "task")
    is_whole = "output" in found and (is_own or not _holds_task([*named.values()]))
    return found if "instruction" in found and (is_whole or "instruction" in named) else {}


def _holds_task(value: list[object]) -> bool:
    """Whether an object within, however deep, has an instruction and an output."""
    left = [*value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if {"instruction", "output"} <= {FIELD_OF.get(name.strip().lower()) for name in one}:
                return True
            left += one.values()
        elif isinstance(one, list):
            left += one
    return False


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut_heading(text: list[str], number: int | None, *, is_numbered: bool, is_first: bool) -> int | None:
    """Take off what only leads to the task that begins behind `text`: empty lines, rules, and a line with its number, which is given.

    A number without a mark is that of the task only where the task has none itself, and it comes after `number`, the last one's. So
    must that of "Example 5" and of "## 5", which outputs may end in, and that of "## 5. Colours", unless no output is before it.
    """
    led = None
    while len(text) > 1:
        if led is None and (title := _title_of(text[-1], number, is_numbered=is_numbered, is_first=is_first)) is not None:
            led = title
        elif (heading := HEADING.match(text[-1])) and led is None:
            is_next = number is None or int(heading["number"]) == number + 1
            word = heading["task"] or heading["counted"] or ""
            is_marked = heading["mark"].strip() and (word or text[-1].rstrip(" *")[-1] in ".):：")
            if not (is_marked or word.lower().strip() == "task" or (is_next and (heading["mark"].strip() or word or not is_numbered))):
                break
            led = int(heading["number"])
        elif not RULE.match(text[-1]):
            break
        text.pop()
    return led


def _title_of(line: str, number: int | None, *, is_numbered: bool, is_first: bool) -> int | None:
    """The number in a line that is the title of the task after `number`; one without "Task" is where that has no number itself."""
    if (title := TITLE.match(line)) and number in (None, int(title["number"]) - 1):
        return int(title["number"])
    if (title := BARE_TITLE.match(line)) and not is_numbered and (is_first or number == int(title["number"]) - 1):
        return int(title["number"])
    return None


def _number_of(match: re.Match[str] | None) -> int | None:
    number = match and (match["number"] or match["behind"])
    return int(number) if number else None


def _may_follow(name: str, field: str) -> bool:
    """Whether a new field begins here. An output may hold lines that look like fields: they are part of it."""
    return (name == "output" and field in ("instruction", "input")) or (name == "input" and field == "instruction")


def render_example(number: int, task: Task) -> str:
    """A task as the teacher is shown it."""
    return f"{number}. Instruction: {task.instruction}\nInput: {task.input or NO_INPUT}\nOutput: {task.output}"


def _task(fields: dict[str, list[str]]) -> Task:
    texts = {name: _joined(lines) for name, lines in fields.items()}
    if texts["input"].strip(AROUND_INPUTS).lower() in EMPTY_INPUTS or texts["input"] in EMPTY_QUOTES:
        texts["input"] = ""
    return Task(**texts)


def _joined(lines: Sequence[str]) -> str:
    """The text of a field, without rules and empty lines at its end."""
    kept = list(lines)
    while len(kept) > 1 and RULE.match(kept[-1]):
        kept.pop()
    return "\n".join(kept).strip()
