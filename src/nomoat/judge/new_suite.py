"""A suite from a user's own file: which columns hold text and answer, or the conversations that `tune` learns, and what kind of task
that is. Every guess is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat import commands, conversations, matching
from nomoat.conversations import CHAT_SUFFIXES
from nomoat.errors import DataError, UsageError
from nomoat.judge import scorers
from nomoat.judge.code import tests
from nomoat.judge.examples import ANSWER, asked, digest_of
from nomoat.judge.metrics import Metric
from nomoat.judge.suite import CODE_MAX_NEW_TOKENS, DEFAULT_MAX_NEW_TOKENS, Suite, unfit
from nomoat.labelling import MAX_LABELS, kept_question, messages_of
from nomoat.records import Example
from nomoat.rows import Source
from nomoat.tables import (
    CLASS_NAMES,
    INPUT_NAMES,
    KOREAN_LABELS,
    LABEL_NAMES,
    PASSAGES,
    QUESTIONS,
    REPLY_NAMES,
    TABLE_SUFFIXES,
    TextForm,
    column_named,
    its_columns,
    read_numbered_table,
    require_no_gaps,
    require_other,
    require_there,
    taken_out,
    text_form,
)
from nomoat.textfiles import JSONL_SUFFIXES, composed, of_unknown_kind, read_jsonl
from nomoat.words import apart, counted, has_several_words, listed, trimmed

OF_A_MODEL = frozenset(
    ("model", "pred", "predicted", "prediction", "llm", "ai", "bot", "assistant", "generated", "rejected")
)  # no target
ROW_NUMBERS = ("id", "no", "no.", "idx", "index", "번호", "순번", "연번")  # columns that say which row it is, and answer nothing
QUESTION_IN_TWO = {"instruction", "input"}
NO_PART = ("prompt",)  # beside a question it is the question written out, or the same words in each row
OTHER_METRIC = "choose another metric with --metric (in Python: `metric`)"
ADDRESS = re.compile(r"\S+@\S+")  # a column `메일` may hold letters, or only where they came from
FEW_LABELS = 20  # a column of at most so many values, each used twice on average, is one of labels
SHORT_WORDS = 5  # an answer of so many words can be compared word for word
SHORT_KOREAN_WORDS = 2  # `보통 2~3일 걸립니다` is a sentence of three
# More than two words that end as a sentence does, but for `Washington D.C.`; and how Korean sentences end, with or without a sign.
SENTENCE = re.compile(r"\S+\s+\S+\s(?:.*\s)?[^\s.]+[.!?]+$", re.DOTALL)
KOREAN_SENTENCE = re.compile(r"(?:니다|니까|세요|[아어에예해돼나까네]요|죠)[.!?~]*$")
FEW_SENTENCES = 0.1  # of all answers: `Martin Luther King Jr.` and `3 x 4 = 12.` look like some, and are compared word for word
# An answer's at most, where it is not a suite's default.
NEW_TOKENS: Mapping[Metric, int] = {"rouge": 256, "f1": 256, "char-f1": 256, "json": 256, "code": CODE_MAX_NEW_TOKENS}
Row = tuple[int, Mapping[str, object]]  # with the line it begins on


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A suite, and why it is the way it is, one sentence a decision."""

    suite: Suite
    reasons: tuple[str, ...]


def suite_from_file(
    path: Path, *, input_column: str | None = None, label_column: str | None = None, metric: Metric | None = None, name: str = ""
) -> Guess:
    """A suite from a CSV, TSV or JSONL, or from conversations as `tune` takes them. What is not said is guessed: the columns by their
    names, the metric by the answers.

    Raises UsageError where the columns cannot be told apart, DataError for rows without text, or an answer that the metric can use.
    """
    if input_column is None and label_column is None and (found := _conversations(path)):
        return suite_of_conversations(found, path, metric=metric, name=name)
    return _of_table(path, input_column, label_column, metric, name)


def _conversations(path: Path) -> conversations.Entries:
    """The conversations that a file holds, with their answers or not; empty if it may be a table: turns without an answer may stand
    beside its columns."""
    suffix = path.suffix.lower()
    if suffix not in CHAT_SUFFIXES:
        return []
    found = conversations.entries(path)
    first = found[0][1]
    has_turns = any(isinstance(first.get(key), list) for key in ("messages", "conversations"))
    names = {composed(key).strip().lower() for key in first}
    has_columns = not names.isdisjoint(INPUT_NAMES) and not names.isdisjoint(LABEL_NAMES)
    return found if suffix not in JSONL_SUFFIXES or conversations.is_lesson(first) or (has_turns and not has_columns) else []


def suite_of_conversations(found: conversations.Entries, path: Source, *, name: str, metric: Metric | None = None) -> Guess:
    """A suite that asks, in the words that `tune` learns, what comes before the last answer of each conversation, or instruction of
    Alpaca's; that answer is the right one, without a draft.

    Raises DataError, naming file and place, for what cannot be learned or asked.
    """
    for where, entry in found:
        if (other := conversations.other_answer(entry)) is not None:
            as_suite = "where all have one and no answer, the file is a suite already"
            as_table = "of lines of JSON, `nomoat suites new` takes the right answers by --label-column (in Python: `label_column`)"
            raise DataError(
                f"`{path}`, {where}: it has a `{other}`, and the right answer of a conversation is its last one",
                hint=f"write it as the last answer, or leave it out; {as_suite if other == 'target' else as_table}",
            )
    examples, longest_with_draft = list[Example](), 0
    chats = conversations.lessons_of(found, path)
    for lesson in chats.lessons:
        *before, answer = lesson.messages
        if before[-1].role != "user":
            raise DataError(
                f"`{path}`, {lesson.where}: before its last answer to learn the {before[-1].role} speaks, and a suite's question "
                "ends with what the user says",
                hint="leave the conversation out",
            )
        target = matching.without_draft(answer.content).strip() or answer.content.strip()  # as of what is compared with it
        if target != answer.content.strip():
            longest_with_draft = max(longest_with_draft, len(answer.content))
        question = lesson.alpaca_question or ""
        examples.append(Example(id=lesson.where.split()[-1], messages=tuple(before), target=target, alpaca_question=question))
    input_reason = f"input: {chats.form}, as `tune` learns them, up to the last answer"
    reasons = input_reason, "label: the last answer", *(f"note: {note}" for note in chats.notes)
    unit = chats.lessons[0].where.split()[0]
    guess = _finished(path, examples, unit, "the last answer", metric, name, reasons, longest_with_draft=longest_with_draft)
    return replace(guess, suite=replace(guess.suite, notes=chats.notes))


def _of_table(path: Path, input_column: str | None, label_column: str | None, metric: Metric | None, name: str) -> Guess:
    rows = _rows(path)
    columns = tuple(dict.fromkeys(name for _, row in rows for name in row))
    if input_column is not None:
        form = text_form(composed(input_column), columns)
        require_there(path, form.columns, columns)
        why_text = f"input: {_named(form)} (as told)"
    else:
        form, why_text = _guessed_form(path, rows, columns, label_column)
    answer_column, why_answer = _column(path, columns, label_column, _label_names(columns, form.columns), "label", form.columns)
    require_other(path, form, answer_column, columns)
    examples = _asked_of(path, rows, form, answer_column)
    reasons, subject = (why_text, why_answer), f"column `{answer_column}`"
    return _finished(path, examples, "line", subject, metric, name, reasons, names_labels=True)


def _asked_of(path: Path, rows: list[Row], form: TextForm, answer_column: str) -> list[Example]:
    """An example of each row; the list is empty then. Raises DataError, naming lines, where a text or its answer is missing."""
    gaps: dict[str, list[int]] = {column: [] for column in (*form.columns, answer_column)}
    examples = []
    for line, row in taken_out(rows):
        cells, answers = {column: _cell(row, column) for column in form.columns}, _answers(row, answer_column)
        missing = [column for column, found in {**cells, answer_column: answers}.items() if not found]
        for column in missing:
            gaps[column].append(line)
        if not missing:
            target, *others = answers
            examples.append(Example(id=str(line), messages=asked(form.filled(cells)), target=target, other_targets=tuple(others)))
    require_no_gaps(path, gaps, what="is empty or no text")
    return examples


def _named(form: TextForm) -> str:
    several = len(form.columns) > 1
    return f"column{'s' if several else ''} {listed([f'`{column}`' for column in form.columns])}"


def _guessed_form(path: Path, rows: Sequence[Row], columns: Sequence[str], label_column: str | None) -> tuple[TextForm, str]:
    """The column that holds the question, by its name. Raises UsageError where another holds a part of it: it would not be asked."""
    label = None if label_column is None else column_named(label_column, columns)
    if {name.strip().lower() for name in columns if name != label} >= QUESTION_IN_TWO:
        raise UsageError(
            f"`{path}`: columns `instruction` and `input` are one question together",
            hint="write each row as a line of JSON with `instruction`, `input` and `output`, or say which column holds the whole "
            "question with --input-column (in Python: `input_column`)",
        )
    taken = [name for name in columns if name == label or ADDRESS.fullmatch(str(rows[0][1].get(name)).strip())]
    column, why = _column(path, columns, None, INPUT_NAMES, "input", taken)
    answer = next(iter(_by_name(columns, _label_names(columns))), None) if label is None else label
    others = [name for name in columns if name not in (column, *taken) and _is_part(rows, column, name, answer)]
    is_answer_among = {*columns} <= {column, *others} and not any(map(_is_passage, others))  # there is no other column for it
    if not others or is_answer_among:
        return text_form(column, columns), why
    of_question = [name for name in columns if name == column or name in others]
    hint = "say with --input-column (in Python: `input_column`) which one is asked, or write the whole question into one column"
    if all(_cell(row, name) for _, row in rows for name in of_question):
        ordered = (*others, column) if any(map(_is_passage, others)) else tuple(of_question)
        form = "\\n\\n".join(f"{{{name}}}" for name in ordered)
        if text_form(form, columns).columns == ordered:  # a name may have braces of its own
            told = commands.as_line([form])
            hint = f"say what is asked with --input-column {told} (in Python: `input_column`), or name one of them with it"
    raise UsageError(f"`{path}`: columns {listed([f'`{name}`' for name in of_question])} may be one question together", hint=hint)


def _is_passage(column: str) -> bool:
    return column.strip().lower() in PASSAGES


def _is_part(rows: Sequence[Row], column: str, name: str, answer: str | None) -> bool:
    """Whether the column called `name`, as columns of questions are, or of what they are about, holds a part of those in `column`: it
    says in a row what its question does not, or tells apart rows with the same question and other answers.
    """
    if name.strip().lower() not in {*INPUT_NAMES, *PASSAGES}.difference(NO_PART):
        return False
    firsts = dict[str, tuple[list[str], object]]()
    for line, row in rows:
        question, texts = _cell(row, column), [*_texts_in(row.get(name))]
        right = line if answer is None else _answers(row, answer)
        first_texts, first_right = firsts.setdefault(question, (texts, right))
        tells_apart = bool(question) and texts != first_texts and right != first_right
        if tells_apart or any(_is_beside(text, name, question) for text in texts):
            return True
    return False


def _is_beside(text: str, name: str, question: str) -> bool:
    """Whether the text of the column called `name` says what the question does not."""
    if _is_passage(name):  # a word alone may be its number or its file's name
        return has_several_words(text) and not conversations.stands_in(text, question)
    return any(map(str.isalpha, text)) and text.split() != question.split()  # a query may stand in the text that it is about


def _texts_in(cell: object) -> Iterator[str]:
    """A cell's text, or those of its list or object."""
    for one in cell.values() if isinstance(cell, Mapping) else cell if isinstance(cell, list) else ():
        yield from _texts_in(one)
    if text := _text(cell):
        yield text


def _finished(
    path: Source, examples: list[Example], unit: str, subject: str, told: Metric | None, name: str,
    reasons: Sequence[str], *, names_labels: bool = False, longest_with_draft: int = 0,
) -> Guess:  # fmt: skip
    """The suite of examples that have no choices yet, which are taken over. `unit`: what their ids count, such as "line"; `subject`:
    that of an error about a target.

    `names_labels`: to choose, a model is asked as a table is, after words that list the labels. `longest_with_draft`: of the answers
    before whose targets reasoning was taken off, in characters; 0 if there are none. Vocabularies of models that reason mostly take
    fewer tokens, in Korean, too, of which three bytes a letter would be more than many a context.
    """
    programs = [tests((example.target, *example.other_targets)) for example in examples]
    if are_tests := told in (None, "code") and all(programs):
        examples = [replace(one, target=target, other_targets=()) for one, target in zip(examples, programs, strict=True)]
    answers = [answer for example in examples for answer in (example.target, *example.other_targets)]
    labels = tuple(sorted(set(answers)))
    language = "ko" if _is_korean([example.messages[-1].content for example in examples]) else "en"  # of the questions alone
    if told is None:
        metric, why_metric = metric_of(answers, labels, num_rows=len(examples), have_drafts=longest_with_draft > 0)
        if are_tests:
            why_metric = f"metric: code (every answer is tests; {ANSWER} is put before them, where a model's code goes)"
    else:
        unscored = "; a choice is scored right after the question, without the reasoning that stands before some answers"
        metric, why_metric = told, f"metric: {told} (as told{unscored if told == 'choice' and longest_with_draft else ''})"
    if metric == "choice" and not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(f"`{path}`: {subject} holds {len(labels):,} labels, and a choice has 2 to {MAX_LABELS}", hint=OTHER_METRIC)
    if metric == "choice":
        question = kept_question(labels)
        for at, one in enumerate(examples):  # in their places: of a million, two of each would be a gigabyte
            messages = messages_of(question, one.messages[-1].content) if names_labels else one.messages
            examples[at] = replace(one, choices=labels, messages=messages)
    for example in examples:
        if wrong := next(filter(None, (unfit(metric, example, one, None) for one in (example.target, *example.other_targets))), ""):
            said = f"`{path}`, {unit} {example.id}: {subject} {wrong}, and the metric is `{metric}`"
            raise DataError(said, hint=f"correct that {unit}, or {OTHER_METRIC}")
    usable, why_name = _name(path)
    suite = Suite(
        name=composed(name) or usable, metric=metric, examples=tuple(examples), sha256=digest_of(examples), source=path.name,
        language=language,
    )  # fmt: skip
    of_json = [len(answer.encode()) for answer in answers if metric == "json"]  # no token is empty
    longest = max([longest_with_draft, *of_json])
    suite = replace(suite, max_new_tokens=max(NEW_TOKENS.get(metric, DEFAULT_MAX_NEW_TOKENS), longest))
    return Guess(suite=suite, reasons=(*reasons, why_metric, *([] if name else why_name)))


def _name(path: Source) -> tuple[str, list[str]]:
    """What a suite of that file is called, and why that is not what the file is called, where it is not."""
    stem = composed(path.stem) if isinstance(path, Path) else path.name
    usable = "_".join(re.findall(r"[\w.-]+", stem)).lstrip(".-") or stem
    said = f"name: {usable} (a suite cannot be called `{stem}`; give another with --name, in Python: `name`)"
    return usable, [] if usable == stem else [said]


def _rows(path: Path) -> list[Row]:
    """Each row with the line it begins on."""
    suffix = path.suffix.lower()
    if suffix in JSONL_SUFFIXES:
        return [(line, {composed(name): value for name, value in row.items()}) for line, row in read_jsonl(path)]
    if suffix not in TABLE_SUFFIXES:
        tables = f"tables end in {', '.join(TABLE_SUFFIXES)}, lines of JSON in {', '.join(JSONL_SUFFIXES)}"
        raise of_unknown_kind(path, f"{tables}, conversations in {', '.join(CHAT_SUFFIXES)}")
    return [*read_numbered_table(path)]


def _column(
    path: Path, columns: Sequence[str], told: str | None, usual: Sequence[str], role: str, taken: Sequence[str]
) -> tuple[str, str]:
    """The column, and how it was found."""
    if told is not None:
        told = column_named(told, columns)
        require_there(path, [told], columns)
        return told, f"{role}: column `{told}` (as told)"
    free = [column for column in columns if column not in taken]
    hint = f"say which with --{role}-column (in Python: `{role}_column`); {its_columns(columns)}"
    if named := _by_name(free, usual):
        replies, classes = _by_name(named, REPLY_NAMES), _by_name(named, CLASS_NAMES)
        is_answered = any(_by_name([column], QUESTIONS) or any(_ends_in(column, name) for name in QUESTIONS) for column in taken)
        if replies and classes and named[0] in (*replies, *classes) and not is_answered:  # beside an answer a class is a remark
            said = listed([f"`{column}`" for column in (*replies, *classes)])
            raise UsageError(f"`{path}`: columns {said} may each hold the right answer", hint=hint)
        return named[0], f"{role}: column `{named[0]}` (by its name)"
    is_last = role == "label"  # of a row's columns: the input is known
    alike = [column for column in free if any(_ends_in(column, name) for name in usual)]
    others = [column for column in free if is_last and column not in alike and column.strip().startswith(KOREAN_LABELS)]
    if len(alike) == 1 and not others and not OF_A_MODEL.intersection(_words(alike[0])):
        return alike[0], f"{role}: column `{alike[0]}` (by the end of its name)"
    if is_last and len(free) == 1 and free[0].strip().lower() not in ROW_NUMBERS:
        return free[0], f"{role}: column `{free[0]}` (the only other one)"
    raise UsageError(f"`{path}`: no column is named like a usual {role}", hint=hint)


def _label_names(columns: Sequence[str], asked: Sequence[str] = ()) -> Sequence[str]:
    """What a column of right answers may be called: where `A` and `B` are to choose from, `A` is none, and a class is a remark. Where
    nothing else is asked, they are no choices, and a class is one if there is no other."""
    names = [column.strip().lower() for column in columns]
    if not {"a", "b"} <= {*names}:
        return LABEL_NAMES
    others = [name for name in LABEL_NAMES if name not in ("a", *CLASS_NAMES)]
    is_pair = bool(asked) and {column.strip().lower() for column in asked} <= {"a", "b"}
    is_class = is_pair and not any(_ends_in(column, name) for column in columns for name in others)
    return CLASS_NAMES if is_class else others


def _by_name(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns that are called so, in the order of the names."""
    return [column for name in names for column in columns if column.strip().lower() == name]


def _ends_in(column: str, name: str) -> bool:
    """Whether a column's last word, which says what it holds, is that name: `customer message`, `상담 내용`, `상담내용`."""
    if not name.isascii():
        return column.strip().endswith(name)
    return len(name) > 1 and _words(column)[-1] == name  # `model_a` is no answer


def _words(column: str) -> list[str]:
    return re.split(r"[\s_-]+", column.strip().lower())


def _cell(row: Mapping[str, object], column: str) -> str:
    """The cell's text; empty where there is none."""
    return _text(row.get(column))


def _text(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return trimmed(composed(value)) if isinstance(value, str) else ""


def _answers(row: Mapping[str, object], column: str) -> list[str]:
    """The right answers of a cell: its text; of lines of JSON also those of a list, and of SQuAD's `{"text": [...]}`."""
    value = row.get(column)
    if isinstance(value, Mapping):
        value = value.get("text")
    cells = [_text(each) for each in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(cells)) if all(cells) else []


def metric_of(answers: Sequence[str], labels: Sequence[str], *, num_rows: int, have_drafts: bool = False) -> tuple[Metric, str]:
    """The metric that fits the answers of so many rows, which may have several each, and why.

    `have_drafts`: some were reasoned for. A choice is scored right after the question, where such a model has not answered yet.
    """
    if all(ANSWER in answer for answer in answers):
        return "code", f"metric: code (every answer holds {ANSWER}, where a model's code goes)"
    are_labels = 2 <= len(labels) <= FEW_LABELS and 2 * len(labels) <= num_rows
    repeat = f"{len(labels)} different answers in {num_rows:,} rows: {', '.join(map(apart, labels))}"
    if are_labels and not have_drafts:
        return "choice", f"metric: choice ({repeat})"
    if all(answer.lstrip().startswith(("{", "[")) and not scorers.broken_json(answer) for answer in answers):
        return "json", "metric: json (every answer is an object or a list of JSON)"
    if all(scorers.is_number(answer) for answer in answers):
        return "numeric", "metric: numeric (every answer is a number)"
    if are_labels:
        return "exact", f"metric: exact ({repeat}; no choice, which has no room for the reasoning before some answers)"
    return _metric_of_words(answers)


def _metric_of_words(answers: Sequence[str]) -> tuple[Metric, str]:
    longest = max(len(answer.split()) for answer in answers)
    is_korean = _is_korean(answers)
    at_most = SHORT_KOREAN_WORDS if is_korean else SHORT_WORDS
    num_sentences = sum(bool(SENTENCE.match(answer) or KOREAN_SENTENCE.search(answer)) for answer in answers)
    if longest <= at_most and num_sentences <= FEW_SENTENCES * len(answers):
        return "exact", f"metric: exact (no answer has more than {counted(longest, 'word')})"
    why = f"answers of up to {longest} words" if longest > at_most else f"{num_sentences:,} of {len(answers):,} answers are sentences"
    return ("char-f1", f"metric: char-f1 (Korean; {why})") if is_korean else ("rouge", f"metric: rouge ({why})")


def _is_korean(texts: Sequence[str]) -> bool:
    letters = [char for text in texts[:1000] for char in text if char.isalpha()]
    return sum("가" <= char <= "힣" for char in letters) * 2 > len(letters)
