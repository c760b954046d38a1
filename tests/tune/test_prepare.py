"""What is said about the data before any work, and what of it is left out."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from learning import COLUMNS
from reference import write_folder
from tiny import MERGES, vocabulary, write_tiny_gguf

import nomoat
from nomoat import paths
from nomoat.catalog import cards, datasets, sidecar
from nomoat.cli.tune import say_survey
from nomoat.conversations import Lesson
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import BadFileError, DataError, UnsupportedError, UsageError
from nomoat.labelling import kept_question
from nomoat.records import Message, Parent, Request
from nomoat.rows import Rows
from nomoat.tune import samples
from nomoat.tune.data import read
from nomoat.tune.prepare import Settings, chosen, data_terms, prepare
from nomoat.tune.samples import Sample, count_lessons, count_texts
from nomoat.tune.surveying import survey_lines


def write_chats(path: Path, *chats: str) -> Path:
    """Conversations in short: `system|user|assistant|user|assistant...`; without a system message if that is empty."""
    lines = []
    for system, *turns in (chat.split("|") for chat in chats):
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def with_last_answers_learned(path: Path) -> Path:
    """The file, changed: earlier answers are read."""
    lines = [json.loads(line)["messages"] for line in path.read_text(encoding="utf-8").splitlines()]
    for *earlier, _ in lines:
        for message in earlier:
            if message["role"] == "assistant":
                message["weight"] = 0
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in lines), encoding="utf-8")
    return path


def write(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows), encoding="utf-8")
    return path


def test_the_survey_counts_labels_repetitions_and_scripts(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ("좋아요", "good"), ("bad day", "bad"), ("Bad  DAY", "good"), ("좋아요", "good"))
    survey = prepare(str(tiny_gguf), path, **COLUMNS).survey
    assert (survey.format, survey.num_lessons) == ("table of texts and labels", 4)
    assert survey.labels == {"good": 3, "bad": 1}
    assert (survey.duplicates, survey.contradictions) == (2, 1)
    assert survey.scripts == {"Latin": 0.667, "Korean": 0.333}
    assert survey.median_tokens <= survey.p95_tokens <= survey.longest_tokens


def test_how_far_the_reading_is_is_told(tiny_gguf: Path, tmp_path: Path) -> None:
    path, told = write(tmp_path / "t.csv", *((f"text {at}", "ab"[at % 2]) for at in range(250))), list[tuple[int, int]]()
    prepare(str(tiny_gguf), path, **COLUMNS, progress=lambda *so: told.append(so))
    assert told == [(100, 250), (200, 250)]


def test_the_survey_counts_all_that_is_said_in_conversations(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_chats(tmp_path / "c.jsonl", "|ab|네네", "|AB |네네", "|ab|아니", "be|cd|좋아|e|좋", "be|cd|싫어|e|좋")
    prepared = prepare(str(tiny_gguf), path)
    assert (prepared.survey.duplicates, prepared.survey.contradictions) == (3, 2)
    assert prepared.survey.scripts == {"Latin": 0.571, "Korean": 0.429}
    say_survey(prepared)
    told = capsys.readouterr().err
    assert "repeated: 3 lessons ask what an earlier one asks, 2 of them with another answer\n  line 1, line 3: ab\n" in told


def test_which_rows_contradict_each_other_is_said(tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("hot", "good"), ("hot", "good"), ("not\n hot", "bad"), ("hot", "bad"), ("Not hot", "good")]
    say_survey(prepare(str(tiny_gguf), write(tmp_path / "t.csv", *rows), **COLUMNS))
    told = capsys.readouterr().err
    assert "with another label\n  line 2 good, line 6 bad: hot\n  line 4 bad, line 7 good: Not hot\n" in told


def test_which_rows_contradict_each_other_is_said_whatever_length_labels_have(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "t.csv", ("hot", "a" * 120), ("cold", '"b, or\nc"'), ("hot", "c"), ("cold", "a"))
    say_survey(prepare(str(tiny_gguf), table, **COLUMNS, instruction="{text}"))
    told = capsys.readouterr().err
    assert f"\n  line 2 {'a' * 80}…, line 5 c: hot\n  line 3 `b, or⟨U+000A⟩c`, line 6 a: cold\n" in told


def test_the_survey_tells_languages_of_the_same_script_apart(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    english, german = "the parcel is not here and I am waiting", "das Paket ist nicht hier und ich warte"
    rows = [(f"{english if at % 4 else german} {at}", "ab"[at % 2]) for at in range(12)]
    table = prepare(str(tiny_gguf), write(tmp_path / "t.csv", *rows), **COLUMNS)
    assert table.survey.languages == {"en": 0.75, "de": 0.25}
    say_survey(table)
    assert "\nscripts: Latin 100%\nlanguages (by their words, roughly): en 75%, de 25%\n" in capsys.readouterr().err
    chats = prepare(str(tiny_gguf), write_chats(tmp_path / "c.jsonl", *(f"{german}|{english} {at}|{german}" for at in range(8))))
    assert chats.survey.languages == {"de": 0.5, "en": 0.5}, "a system message is not counted"
    say_survey(prepare(str(tiny_gguf), write(tmp_path / "few.csv", *rows[:9]), **COLUMNS))
    assert "languages" not in capsys.readouterr().err


def test_the_same_answers_are_no_contradiction_whichever_of_them_are_learned(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write_chats(tmp_path / "c.jsonl", "|ab|네|c|좋")
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + with_last_answers_learned(path).read_text(encoding="utf-8"), encoding="utf-8")
    survey = prepare(str(tiny_gguf), path).survey
    assert (survey.num_lessons, survey.duplicates, survey.contradictions) == (2, 1, 0)


def test_other_answers_are_a_contradiction_where_lessons_learn_them(tiny_gguf: Path, tmp_path: Path) -> None:
    """Nor is it one that the same answer is learned after others, as behind each of TRL's prompts."""
    said = ("|ab|네|c|좋", "|ab|아니|c|좋", "|ab|X|c|좋")
    read = with_last_answers_learned(write_chats(tmp_path / "read.jsonl", *said)).read_text(encoding="utf-8")
    one, other = (write_chats(tmp_path / "learned.jsonl", chat).read_text(encoding="utf-8") for chat in said[:2])
    path = tmp_path / "c.jsonl"
    for text, contradictions in ((read, 0), (one + read, 0), (read + one + other, 1), (one + read + other, 1)):
        path.write_text(text, encoding="utf-8")
        survey = prepare(str(tiny_gguf), path).survey
        assert (survey.duplicates, survey.contradictions) == (survey.num_lessons - 1, contradictions)


def test_what_stands_in_the_test_file_is_named_and_not_learned(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "a"))
    test = write(tmp_path / "test.csv", (" TWO", "b"), ("four", "a"))
    prepared = prepare(str(tiny_gguf), train, test=test, **COLUMNS)
    assert (prepared.survey.shared_with_test, prepared.shared_texts) == (("line 3",), ("line 3: two",))
    say_survey(prepared)
    assert "asked in the test file, too: 1 text; 1 lesson dropped\n  line 3: two\n" in capsys.readouterr().err
    assert (prepared.survey.dropped, prepared.survey.num_lessons) == (1, 2)
    kept = prepare(str(tiny_gguf), train, test=test, keep_shared=True, **COLUMNS)
    assert (kept.survey.dropped, kept.survey.num_lessons) == (0, 3)


def test_the_same_text_in_other_spaces_letters_and_forms_is_not_learned(tiny_gguf: Path, tmp_path: Path) -> None:
    asked = "Café가 열려 있나요?"
    same = ("CAFÉ가  열려\u00a0있나요?", unicodedata.normalize("NFD", asked), f"\ufeff{asked}", "Café가\u200b 열려 있나요?\u200b")
    train = write(tmp_path / "train.csv", *((text, "a") for text in same), ("Café가 열려있나요?", "b"))
    prepared = prepare(str(tiny_gguf), train, test=write(tmp_path / "test.csv", (asked, "a"), ("x", "b")), **COLUMNS)
    assert prepared.survey.shared_with_test == ("line 2", "line 3", "line 4", "line 5")


def test_a_chat_that_learns_the_answer_to_a_tests_question_before_its_last_one_is_not_learned(tiny_gguf: Path, tmp_path: Path) -> None:
    """A test asks up to its last answer: what it asks before that is in both, and not asked. What is shown stands there."""
    chats = ("|hi|ho|and then|bye", "|hello|ho|hi|ho", "Be brief.|hi|ho|x|y", "|a|b", "|a|b|c|d|e|f", "|HI |other")
    train = write_chats(tmp_path / "train.jsonl", *chats)
    test = write_chats(tmp_path / "test.jsonl", "|hi|ho", "|a|B, said otherwise|c|d")
    prepared = prepare(str(tiny_gguf), train, test=test)
    assert prepared.survey.shared_with_test == ("line 1", "line 5", "line 6")
    assert prepared.shared_texts == ("line 1: hi", "line 5: a\nc", "line 6: HI ")


@pytest.mark.parametrize("is_test", [False, True])
def test_an_answer_that_is_not_learned_makes_no_other_question(is_test: bool, tiny_gguf: Path, tmp_path: Path) -> None:
    chats = []
    for weight in (0, 1):
        answers = [{"role": "assistant", "content": "b", "weight": weight}, {"role": "assistant", "content": "d"}]
        chats.append([turn for asked, said in zip("ac", answers, strict=True) for turn in ({"role": "user", "content": asked}, said)])
    given, other = [{"messages": chat} for chat in (reversed(chats) if is_test else chats)]
    rest = {"messages": [{"role": "user", "content": "else"}, {"role": "assistant", "content": "x"}]}
    survey = prepare(str(tiny_gguf), [given, rest, other], test=[other]).survey
    assert (survey.shared_with_test, survey.num_lessons) == (("row 1", "row 3"), 1)
    assert prepare(str(tiny_gguf), [given, rest, other]).survey.duplicates == 1


@pytest.mark.skipif(shutil.which("sh") is None, reason="the recipe is one for a POSIX shell")
def test_a_part_of_what_a_teacher_wrote_has_its_terms_where_the_recipe_copies_them(tiny_gguf: Path, tmp_path: Path) -> None:
    """The first lines of the recipe of docs/tune.md, "A test for conversations", as they stand there."""
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"instruction": f"Say {n}.", "output": str(n)}) + "\n" for n in range(200)))
    parents = [Parent(name="openai:gpt-4o-mini", kind="teacher", licence="openai-terms")]
    with sidecar.saving(tasks, sha256=paths.sha256_of(tasks), teacher="openai:gpt-4o-mini", parents=parents, facts={}):
        pass
    page = (Path(__file__).parents[2] / "docs" / "tune.md").read_text(encoding="utf-8")
    recipe = page.partition("### A test for conversations")[2].partition("```console\n")[2].partition("$ nomoat")[0]
    subprocess.run(["sh", "-e", "-c", recipe.replace("$ ", "")], cwd=tmp_path, check=True)
    prepared = prepare(str(tiny_gguf), tmp_path / "train.jsonl", test=tmp_path / "test.jsonl", template="alpaca")
    assert prepared.survey.num_lessons == 180
    assert prepared.sidecar is not None and prepared.sidecar.parents == tuple(parents)


def test_rows_are_prepared_as_their_files_are(tiny_gguf: Path, tmp_path: Path) -> None:
    train, test, validation = (("one", "a"), ("two", "b"), ("three", "a")), ((" TWO", "b"),), (("four", "b"), ("two", "b"))
    files = [write(tmp_path / f"{at}.csv", *rows) for at, rows in enumerate((train, test, validation))]
    of_files = prepare(str(tiny_gguf), files[0], test=files[1], validation=files[2], **COLUMNS)
    given = [[{"text": text, "label": label} for text, label in rows] for rows in (train, test, validation)]
    prepared = prepare(str(tiny_gguf), iter(given[0]), test=iter(given[1]), validation=iter(given[2]), **COLUMNS)
    assert [sample.tokens for sample in prepared.all_samples] == [sample.tokens for sample in of_files.all_samples]
    assert (prepared.survey.shared_with_test, prepared.survey.validation_shared_with_test) == (("row 2",), ("row 2",))
    assert (prepared.options["test"], prepared.options["validation"]) == ("test rows", "validation rows")
    assert {str(source): source.values for source in (prepared.data.path, *prepared.others.values()) if isinstance(source, Rows)} == {
        "rows": (), "test rows": (), "validation rows": (),  # which would go to other machines with all else
    }  # fmt: skip
    with pytest.raises(DataError, match="`validation rows`, row 1: label `c` is not one of a, b"):
        prepare(str(tiny_gguf), given[0], validation=[{"text": "x", "label": "c"}, {"text": "y", "label": "a"}], **COLUMNS)


def test_what_a_teachers_terms_allow_is_said_before_any_work(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "a"))
    made_from = [Parent(kind="teacher", name="openai:gpt-4o", licence="openai-assistant")]
    with sidecar.saving(data, sha256=paths.sha256_of(data), teacher="openai:gpt-4o", parents=made_from, facts={}):
        pass
    say_survey(prepare(str(tiny_gguf), data, **COLUMNS))
    said = capsys.readouterr().err
    assert "teacher: openai:gpt-4o wrote this data\n" in said
    assert (
        "terms of what learns from it:\ncommercial use: no, in part unconfirmed\n"
        "  because of teacher openai:gpt-4o: OpenAI's output may not be used"
    ) in said


def test_terms_that_an_earlier_nomoat_took_for_a_teachers_are_said_not_to_be(tiny_gguf: Path, tmp_path: Path) -> None:
    data, teacher = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "a")), "http://127.0.0.1:9/v1#m"
    made_from = [Parent(kind="teacher", name=teacher, licence="own", source="stated by the user")]
    with sidecar.saving(data, sha256=paths.sha256_of(data), teacher=teacher, parents=made_from, facts={}):
        pass
    lines = list(survey_lines(prepare(str(tiny_gguf), data, **COLUMNS)))
    assert lines[lines.index(f"teacher: {teacher} wrote this data") + 1] == (
        f"note: of {teacher}, `train.csv.provenance.json` has other terms (`own`) than are known now (`unknown`)"
    )
    assert f"  because of teacher {teacher}: terms not known" in lines


@pytest.mark.parametrize(
    ("stated", "use", "why", "is_taken"),
    [
        (None, "unknown", "base weights of unknown origin: terms not known", True),
        ("own", "unknown", "base weights of unknown origin: terms not known", False),
        ("cc-by-nc-4.0", "no", "data train.csv: non-commercial use only", False),
    ],
)
def test_what_the_result_may_be_used_for_is_said_before_any_work(
    stated: str | None, use: str, why: str, is_taken: bool, tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "a"))
    say_survey(prepare(str(tiny_gguf), data, data_licence=stated, **COLUMNS))
    said = capsys.readouterr().err
    assert f"terms of what learns from it:\ncommercial use: {use}, in part unconfirmed\n  because of {why}\n" in said
    assert ("note: `train.csv` is taken as your own; name terms of others with --data-licence" in said) == is_taken


def test_a_file_of_a_known_data_set_has_its_terms_under_any_name(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "mine.csv", ("one", "a"), ("two", "b"), ("three", "a"))
    bank = datasets.dataset("banking77")
    file = dataclasses.replace(bank.files[0], sha256=paths.sha256_of(data))
    monkeypatch.setattr(datasets, "datasets", lambda: {"banking77": dataclasses.replace(bank, files=(file,))})
    for stated, found in ((None, ["cc-by-4.0"]), ("cc-by-4.0", ["cc-by-4.0"]), ("mit", ["cc-by-4.0", "mit"])):
        prepared = prepare(str(tiny_gguf), data, data_licence=stated, **COLUMNS)
        links = [(link.name, link.licence) for link in prepared.licence.links if link.role == "data"]
        assert links == list(zip(["mine.csv (banking77)", "mine.csv"], found, strict=False))
        assert prepared.data_terms[0].confirmed == "read"
    assert prepared.licence.links[1].source == bank.licence_source
    say_survey(prepare(str(tiny_gguf), data, **COLUMNS))
    note = "note: mine.csv (banking77) has its terms from nomoat's catalogue: Creative Commons BY 4.0\n"
    assert note in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"`mine\.csv` is a file of the data set `banking77`, which has terms of others: Creative"):
        prepare(str(tiny_gguf), data, data_licence="own", **COLUMNS)
    changed = prepare(str(tiny_gguf), write(data, ("one", "a"), ("two", "b")), **COLUMNS)
    assert [link.licence for link in changed.licence.links] == ["unknown", "own"]


@pytest.mark.parametrize("name", ["sms_spam", "kobest", "mbpp"])
def test_terms_of_a_data_set_that_nobody_saw_in_its_source_are_unconfirmed(name: str, tmp_path: Path) -> None:
    known = datasets.dataset(name)
    (found,) = data_terms(Rows(name="rows", values=(), sha256=str(known.files[0].sha256)), None)
    assert (found.licence, found.confirmed) == ({"kobest": "cc-by-sa-4.0"}.get(name, "cc-by-4.0"), "memory")


def test_free_answers_are_no_labels_that_the_provenance_names(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", *((f"q{n}", f"answer {n}") for n in range(300)))
    survey = prepare(str(tiny_gguf), path, instruction="Answer.", **COLUMNS).survey
    assert (survey.num_lessons, survey.labels, survey.question) == (300, {}, "Answer.\n\nText: {text}\nLabel:")


def test_conversations_are_the_same_text_if_all_but_their_answers_is(tiny_gguf: Path, tmp_path: Path) -> None:
    train = write_chats(tmp_path / "train.jsonl", *(f"doc {n}|Sum.|sum {n}" for n in range(30)), "Doc 7|sum. |another", "|Sum.|x")
    test = write_chats(tmp_path / "test.jsonl", "doc 5|Sum.|unknown", "doc 40|Sum.|unknown", "|Else.|unknown")
    prepared = prepare(str(tiny_gguf), train, test=test)
    assert (prepared.survey.duplicates, prepared.shared_texts) == (1, ("line 6: Sum.",))
    learned, held_out = prepared.split
    assert (len(learned), len(held_out)) == (28, 3)
    assert not {sample.digest for sample in learned} & {sample.digest for sample in held_out}


def test_lessons_are_held_out_whole_however_many_rows_they_are(tiny_gguf: Path, tmp_path: Path) -> None:
    """Llama 2's template writes the beginning of a conversation another way once it goes on: a row for each answer."""
    path = write_chats(tmp_path / "c.jsonl", *(f"|hi {n}|a|on {n}|b|out {n}|c" for n in range(20)))
    prepared = prepare(str(tiny_gguf), path, template="llama-2")
    learned, held_out = prepared.split
    assert len(prepared.samples) == 60 and (count_lessons(learned), count_lessons(held_out)) == (18, 2)
    assert not {sample.lesson for sample in learned} & {sample.lesson for sample in held_out}


def logged(case: int, length: int = 4) -> list[str]:
    """A conversation as a log holds it: once for each of its answers."""
    turns = [f"case {case} question {n}|answer {n} of {case}" for n in range(length)]
    return ["|" + "|".join(turns[: n + 1]) for n in range(length)]


def asked_in(samples: list[Sample]) -> set[bytes]:
    return {question for sample in samples for question in sample.asked}


@pytest.mark.parametrize("template", [None, "llama-2"])
def test_a_conversation_is_held_out_with_what_a_log_holds_of_its_beginning(
    template: str | None, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Else its earlier answers are learned elsewhere, and measured. Each case is one text."""
    path = write_chats(tmp_path / "log.jsonl", *(chat for case in range(40) for chat in logged(case)))
    learned, held_out = prepare(str(tiny_gguf), path, template=template).split
    assert (count_lessons(learned), count_lessons(held_out), count_texts(held_out)) == (144, 16, 4)
    assert len(asked_in(held_out)) == 16 and not asked_in(learned) & asked_in(held_out)
    assert all(len(sample.asked) == len(sample.answers) for sample in held_out)


def test_a_log_of_which_each_last_answer_is_learned_is_held_out_by_conversations(tiny_gguf: Path, tmp_path: Path) -> None:
    """Else what is measured stands before answers that are learned, and entries of one conversation count as independent."""
    path = write_chats(tmp_path / "log.jsonl", *(chat for case in range(40) for chat in logged(case)))
    learned, held_out = prepare(str(tiny_gguf), with_last_answers_learned(path)).split
    assert (count_lessons(learned), count_lessons(held_out), count_texts(held_out)) == (144, 16, 4)


def test_what_several_conversations_go_on_from_is_learned(tiny_gguf: Path, tmp_path: Path) -> None:
    begun = [f"|hi {n}|a|who {n}|b" for n in range(60)]
    goings_on = [f"{chat}|{end}|c" for chat in begun for end in ("on", "out")]
    path = write_chats(tmp_path / "log.jsonl", *begun, *goings_on)
    for change in (Path, with_last_answers_learned):
        _, held_out = prepare(str(tiny_gguf), change(path)).split
        assert count_lessons(held_out) == 18 and not {sample.lesson for sample in held_out} & {f"line {n}" for n in range(1, 61)}


def test_goings_on_that_were_left_out_as_too_long_are_none(tiny_gguf: Path, tmp_path: Path) -> None:
    goings_on = [f"|hi {n}|a|{end} {'long ' * 200}|b" for n in range(30) for end in ("on", "out")]
    path = write_chats(tmp_path / "c.jsonl", *(f"|hi {n}|a" for n in range(30)), *goings_on)
    learned, held_out = prepare(str(tiny_gguf), path, drop_long=True).split
    assert (count_lessons(learned), count_lessons(held_out)) == (27, 3)


def test_an_answer_of_two_turns_in_a_row_is_no_fork(tiny_gguf: Path) -> None:
    rows = []
    for case in range(40):
        asked, said = ([Message(role=role, content=f"{role} {n} of {case}") for n in range(3)] for role in ("user", "assistant"))  # type: ignore[arg-type]
        turns = [asked[0], said[0], said[0], asked[1], said[1], asked[2], said[2]]
        rows += [{"messages": [{"role": one.role, "content": one.content} for one in turns[:end]]} for end in (3, 5, 7)]
    learned, held_out = prepare(str(tiny_gguf), rows).split
    assert (count_lessons(learned), count_lessons(held_out), count_texts(held_out)) == (108, 12, 4)


def test_a_question_in_two_turns_or_with_an_answer_between_is_held_out_alike_in_any_order(tiny_gguf: Path) -> None:
    rows = []
    for case in range(40):
        first, second, third = ({"role": "user", "content": f"{word} {case}"} for word in ("one", "two", "three"))
        answer = {"role": "assistant", "content": "so"}
        rows += [{"messages": [first, answer, second, answer]}, {"messages": [first, second, answer, third, answer]}]
    forward, backward = (asked_in(prepare(str(tiny_gguf), given).split[1]) for given in (rows, rows[::-1]))
    assert forward == backward != set()


def test_what_an_adapter_learned_of_a_log_is_not_held_out_of_the_log_that_has_grown(tiny_gguf: Path, tmp_path: Path) -> None:
    before, grown = (
        write_chats(tmp_path / f"{length}.jsonl", *(chat for case in range(60) for chat in logged(case, length))) for length in (3, 4)
    )
    (learned, _), (_, held_out) = (prepare(str(tiny_gguf), path).split for path in (before, grown))
    assert len(asked_in(held_out)) == 24 and not asked_in(learned) & asked_in(held_out)


@pytest.mark.parametrize("template", [None, "llama-2"])
def test_answers_where_conversations_begin_alike_are_learned_and_not_measured(
    template: str | None, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Else nothing of a log whose every conversation begins with the same greeting could be held out."""
    chats = [f"Be kind.|hi|hello|question {n}|answer|thanks|bye" for n in range(38)]
    learned, held_out = prepare(
        str(tiny_gguf), write_chats(tmp_path / "c.jsonl", *chats, "Be kind.|HI|hello"), template=template
    ).split
    assert (count_lessons(held_out), count_texts(held_out), len(asked_in(held_out))) == (3, 3, 6)
    assert "line 39" in {sample.lesson for sample in learned}
    assert len(asked_in(learned)) == 1 + 2 * 35 and not asked_in(learned) & asked_in(held_out)


def test_what_a_training_learns_and_holds_out_is_in_its_digest(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same tokens: a state of a training that held others out would go on with lessons that it has learned."""
    prepared = prepare(str(tiny_gguf), write_chats(tmp_path / "c.jsonl", *(f"|hi {n}|a" for n in range(30))))
    found = prepared.lessons_sha256()
    monkeypatch.setattr("nomoat.tune.prepare.VALIDATION_PART", 0.2)
    assert dataclasses.replace(prepared).lessons_sha256() != found  # another, since what is held out is kept


def test_of_each_label_a_lesson_is_left_to_learn_where_labels_are_no_free_answers(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = [(f"rare {n}", f"r{n}") for n in range(10)]
    twice = [(f"{word} {n}", f"t{n}") for word in ("one", "other") for n in range(10)]
    rows = [(f"text {n}", "ab"[n % 2]) for n in range(60)] + rare + twice
    prepared = prepare(str(tiny_gguf), write(tmp_path / "rare.csv", *rows), **COLUMNS)
    label_of = {lesson.where: lesson.label for lesson in prepared.data.lessons}
    learned, held_out = prepared.split
    assert len(held_out) == 9
    assert {label_of[sample.lesson] for sample in learned} == {label for _, label in rows}

    prepared = prepare(str(tiny_gguf), write(tmp_path / "alone.csv", *rare), **COLUMNS)
    assert prepared.split[1] == []
    say_survey(prepared)
    assert "none of the lessons, since every text stands in more than 1 of them or is the only one with its label;" in (
        capsys.readouterr().err
    )
    free = prepare(str(tiny_gguf), tmp_path / "alone.csv", instruction="Answer.", **COLUMNS)
    assert len(free.split[1]) == 1


@pytest.mark.parametrize(
    ("chats", "said"),
    [
        ([f"|hi {n}|a" for n in range(9)], "a tenth of them is less than one"),
        ([f"|hi|{n}" for n in range(30)], "every text, or conversation with all its entries, stands in more than 3 of them"),
        (
            [f"|hi {n}{end}" for n in range(3) for end in ("|a", *("|a|x|b", "|a|y|b") * 4)],
            "every text, or conversation with all its entries, stands in more than 2 of them "
            "or has several conversations that go on from it",
        ),
        ([f"|hi {n}|a" for n in range(10)], ""),
    ],
)
def test_it_is_said_when_nothing_is_held_out(
    tiny_gguf: Path, tmp_path: Path, chats: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_survey(prepare(str(tiny_gguf), write_chats(tmp_path / "c.jsonl", *chats)))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("held out")]
    unmeasured = "whether tuning helps is not measured without --validation FILE (in Python: `validation`)"
    whole = f"held out: none of the lessons, since {said}; {unmeasured}"
    assert lines == ([whole] if said else [])


def test_a_validation_file_is_counted_in_lessons(tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, held_out = (write_chats(tmp_path / f"{name}.jsonl", f"|{name}|a|on|b|out|c", f"|{name} 2|a|on|b|out|c") for name in "xy")
    say_survey(prepare(str(tiny_gguf), path, validation=held_out, template="llama-2"))
    assert f"held out: the 2 lessons of {held_out}\n" in capsys.readouterr().err


def test_a_validation_file_of_one_text_is_said_to_prove_nothing(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, same, other = (write_chats(tmp_path / f"{name}.jsonl", *(f"|{text}|a" for text in name)) for name in ("xy", "zz", "zw"))
    said = "note: one text held out says nothing about chance; give --validation (in Python: `validation`) a file that holds several\n"
    say_survey(prepare(str(tiny_gguf), data, validation=same))
    assert f"held out: the 2 lessons of {same}\n{said}" in capsys.readouterr().err
    say_survey(prepare(str(tiny_gguf), data, validation=other))
    assert said not in capsys.readouterr().err


def test_a_validation_file_is_held_out_and_what_stands_in_it_is_not_learned(tiny_gguf: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "a"))
    held_out = write(tmp_path / "dev.csv", ("Three ", "a"), ("four", "b"))
    prepared = prepare(str(tiny_gguf), train, validation=held_out, **COLUMNS)
    assert (len(prepared.samples), len(prepared.validation)) == (2, 2)
    assert prepared.survey.shared_with_validation == ("line 4",)
    assert (prepared.survey.dropped, prepared.survey.num_lessons) == (0, 2)
    assert (prepared.options["validation"], prepared.others) == (held_out.name, {"validation": held_out})
    with pytest.raises(DataError, match="nothing of it is left"):
        prepare(str(tiny_gguf), train, validation=train, **COLUMNS)


def test_no_answer_that_a_validation_file_measures_is_learned(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands there from its beginning on, or goes on from there, is left out; of what begins alike the same answers are read."""
    chats = ["|a|1", "|a|1|b|2|c|3|d|4", "|hi|hello", "|hi|hello|x|1|y|2", "|hi|hello|x|1", "|z|1"]
    train = write_chats(tmp_path / "train.jsonl", *chats)
    held_out = write_chats(tmp_path / "dev.jsonl", "|a|other|b|2", "|hi|hello|x|1|w|2")
    prepared = prepare(str(tiny_gguf), train, validation=held_out)
    assert prepared.survey.shared_with_validation == ("line 1", "line 2", "line 3", "line 5")
    learned, measured = prepared.split
    assert [len(sample.answers) for sample in measured] == [2, 1] and not asked_in(learned) & asked_in(measured)
    say_survey(prepared)
    assert (
        f"held out: the 2 lessons of {held_out}; in the data, too, and dropped there: 4 texts; "
        "learned from the data, too, and not measured: 2 answers\n"
    ) in capsys.readouterr().err


def test_what_goes_on_from_a_validation_file_is_not_learned_whichever_of_its_answers_are(tiny_gguf: Path, tmp_path: Path) -> None:
    train = write_chats(tmp_path / "train.jsonl", "|a|1", "|a|1|b|2|c|3", "|z|1")
    held_out = write_chats(tmp_path / "dev.jsonl", "|a|1|b|2", "|q|2")
    for change in (Path, with_last_answers_learned):
        prepared = prepare(str(tiny_gguf), change(train), validation=change(held_out))
        assert prepared.survey.shared_with_validation == ("line 1", "line 2")


def test_what_was_not_read_of_other_files_is_said_with_their_names(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chat(name: str, **beside: object) -> Path:
        answer = {"role": "assistant", "content": "b", "thinking": "c" if name == "test" else ""}
        path = tmp_path / f"{name}.jsonl"
        rows = [{"messages": [{"role": "user", "content": f"{name} {n}"}, answer], **beside} for n in range(2)]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return path

    how = {"validation": chat("dev", id=1), "test": chat("test", license="MIT")}
    say_survey(prepare(str(tiny_gguf), chat("train", source="web"), template="llama-2", **how))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("note: ") and "not read" in line] == [
        "note: not read of lessons, with how many have it: `source` (2)",
        "note: test.jsonl: not read of lessons, with how many have it: `license` (2)",
        "note: test.jsonl: not read of turns, with how many have it: `thinking` (2)",
        "note: dev.jsonl: not read of lessons, with how many have it: `id` (2)",
    ]
    with pytest.raises(DataError, match="an answer of the assistant has its reasoning beside it"):
        prepare(str(tiny_gguf), how["validation"], validation=how["test"], template="llama-2")


@pytest.mark.parametrize("which", ["validation", "test"])
def test_a_label_all_of_whose_rows_another_file_has_is_said_to_have_none_to_learn_from(
    tiny_gguf: Path, tmp_path: Path, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"), ("three", "c"))
    other = write(tmp_path / "other.csv", ("three", "c"), ("four", "a"))
    say_survey(prepare(str(tiny_gguf), data, **{which: other}, **COLUMNS))
    assert "labels: a 1, b 1\nlabels asked for without a row to learn from: c\n" in capsys.readouterr().err


def test_a_label_of_the_validation_file_that_is_not_learned_is_named_with_its_line(tiny_gguf: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"))
    held_out = write(tmp_path / "dev.csv", ("three", "a"), ("four", "B "))
    with pytest.raises(DataError) as caught:
        prepare(str(tiny_gguf), train, validation=held_out, **COLUMNS)
    assert caught.value.message == f"`{held_out}`, line 3: label `B` is not one of a, b"
    free = prepare(str(tiny_gguf), train, validation=held_out, instruction="Answer.", **COLUMNS)  # names no labels
    assert (len(free.validation), free.survey.labels) == (2, {})


def test_what_stands_in_the_test_file_is_not_held_out_to_choose_by(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = write(tmp_path / "train.csv", ("one", "a"), ("two", "b"))
    held_out = write(tmp_path / "dev.csv", ("three", "a"), ("four", "b"), ("five", "b"))
    files = {"validation": held_out, "test": write(tmp_path / "test.csv", ("Four", "b"), ("six", "a"))}
    prepared = prepare(str(tiny_gguf), train, **files, **COLUMNS)
    assert (len(prepared.validation), prepared.survey.validation_shared_with_test) == (2, ("line 3",))
    say_survey(prepared)
    assert f"held out: the 2 lessons of {held_out}; in the test file, too, and left out: 1 text\n" in capsys.readouterr().err
    assert len(prepare(str(tiny_gguf), train, **files, keep_shared=True, **COLUMNS).validation) == 3


def test_lessons_not_their_rows_decide_how_often_they_are_seen(tiny_gguf: Path, tmp_path: Path) -> None:
    """Llama 2's template makes a row of each of a conversation's three answers: 600 rows would be seen four times, 12 a step."""
    path = write_chats(tmp_path / "c.jsonl", *(f"|hi {n}|a|on {n}|b|out {n}|c" for n in range(200)))
    prepared = prepare(str(tiny_gguf), path, template="llama-2")
    assert (len(prepared.samples), prepared.settings.epochs, prepared.settings.batch) == (600, 6, 4)


def test_lessons_too_long_are_refused_or_left_out_by_name_but_never_cut(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ("short", "a"), ("long " * 200, "b"), ("long " * 300, "b"))
    with pytest.raises(DataError) as caught:
        prepare(str(tiny_gguf), path, **COLUMNS)
    assert caught.value.message.startswith(f"`{path}`, line 3: 1,0") and caught.value.message.endswith("(1 more do not fit)")
    prepared = prepare(str(tiny_gguf), path, drop_long=True, **COLUMNS)
    assert sys.getsizeof(prepared.samples[0].tokens) < 5 * len(prepared.samples[0]) + 100  # in a list: 36 a token
    survey = prepared.survey
    assert "too long for the model, left out: 2 (line 3, line 4)" in survey_lines(prepared)
    assert survey.too_long == ("line 3", "line 4") and (survey.num_lessons, survey.labels) == (1, {"a": 1, "b": 0})
    shorter = tmp_path / "short.csv"
    shorter.write_text("text,label\n" + "".join(f"short {n},{'ab'[n % 2]}\n" for n in range(4)))
    found = prepare(str(tiny_gguf), shorter, validation=path, drop_long=True, **COLUMNS)
    assert found.survey.too_long == (f"line 3 of {path.name}", f"line 4 of {path.name}") and len(found.validation) == 1


def test_a_conversation_the_template_refuses_is_named_with_its_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}{{ messages[0].content }}"
    model = write_tiny_gguf(tmp_path / "m.gguf", template=refusing)
    path = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    with_system = [{"role": "system", "content": "be kind"}, *turns]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in (turns, with_system, turns, turns)))
    read, encode = list[str](), samples.encode
    monkeypatch.setattr("nomoat.tune.samples.encode", lambda lesson, *rest: read.append(lesson.where) or encode(lesson, *rest))
    with pytest.raises(DataError, match="line 2: the model's chat template refuses this conversation: no system here"):
        prepare(str(model), path)
    assert read == ["line 1", "line 2"]


def test_a_text_of_100_000_tokens_is_counted_and_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ("short", "a"), ("also short", "b"), ("z" * 100_000, "b"))
    with pytest.raises(DataError) as caught:
        prepare(str(tiny_gguf), path, **COLUMNS)
    assert caught.value.message.startswith(f"`{path}`, line 4: 100,") and caught.value.message.endswith("the model's context is 256")
    assert prepare(str(tiny_gguf), path, drop_long=True, **COLUMNS).survey.longest_tokens < 256


def test_a_text_far_beyond_the_context_is_named_by_its_line_and_not_cut_to_its_end(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 49 MB in one line that would take 7 GB, and minutes in which nothing can stop it. In a prompt as in an answer."""
    cut, encode_many = list[str](), Tokenizer.encode_many
    monkeypatch.setattr(Tokenizer, "encode_many", lambda self, texts, **how: cut.extend(texts) or encode_many(self, texts, **how))
    long = "long " * 200_000
    path = write_chats(tmp_path / "c.jsonl", "|hi|ho", f"|{long}|ho", f"|hi|{long}")
    with pytest.raises(DataError) as caught:
        prepare(str(tiny_gguf), path)
    assert caught.value.message == (f"`{path}`, line 2: more than 256 tokens, and the model's context is 256 (1 more do not fit)")
    assert prepare(str(tiny_gguf), path, drop_long=True).survey.too_long == ("line 2", "line 3")
    assert max(map(len, cut)) < len(long)


def test_an_earlier_answer_far_beyond_the_context_is_not_cut_to_its_end_where_the_last_prompt_leaves_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As templates leave out the thoughts of earlier answers."""
    questions = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    model = str(write_tiny_gguf(tmp_path / "m.gguf", template=questions))
    cut, encode_many = list[str](), Tokenizer.encode_many
    monkeypatch.setattr(Tokenizer, "encode_many", lambda self, texts, **how: cut.extend(texts) or encode_many(self, texts, **how))
    long = "long " * 200_000
    path = write_chats(tmp_path / "c.jsonl", f"|hi|{long}|and|ho", "|hi|ho|and|ho")
    assert prepare(model, path, drop_long=True).survey.too_long == ("line 1",)
    assert max(map(len, cut)) < len(long)


def test_nothing_left_to_learn_is_an_error(tiny_gguf: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ("one", "a"), ("two", "b"))
    with pytest.raises(DataError, match="nothing of it is left"):
        prepare(str(tiny_gguf), path, test=path, **COLUMNS)


def test_a_conversation_is_one_row_of_tokens_with_every_answer_learned(tiny_gguf: Path) -> None:
    tokenizer = from_metadata(GGUFFile(tiny_gguf).metadata)
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "farewell")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)  # type: ignore[arg-type]
    (sample,) = samples.encode(Lesson(where="line 1", turns=messages), tokenizer, 256)
    learned = [tokenizer.decode(sample.tokens[start:stop]) for start, stop in sample.answers]
    assert learned == ["hello", "farewell"]
    assert all(sample.tokens[stop - 1] == tokenizer.special.eos_id for _, stop in sample.answers)
    prompt = tokenizer.encode(tokenizer.render(messages[:3]))
    assert sample.tokens[: sample.answers[1][0]] == prompt  # as the model is asked when it is served


def test_an_answer_that_is_not_learned_is_read_like_a_question(tiny_gguf: Path) -> None:
    tokenizer = from_metadata(GGUFFile(tiny_gguf).metadata)
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "farewell"), ("user", "?"), ("assistant", "!")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)  # type: ignore[arg-type]
    (sample,) = samples.encode(Lesson(where="line 1", turns=messages, not_learned=(1,)), tokenizer, 256)
    assert [tokenizer.decode(sample.tokens[start:stop]) for start, stop in sample.answers] == ["farewell", "!"]
    assert sample.tokens[: sample.answers[1][0]] == tokenizer.encode(tokenizer.render(messages[:5]))


def test_a_template_that_rewrites_earlier_turns_gives_a_row_for_each_answer(tiny_gguf: Path) -> None:
    tokenizer = from_metadata(GGUFFile(tiny_gguf).metadata)
    tokenizer.chat_template = "{{ messages | length }}:{{ messages[-1].content }}>"
    turns = [("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "farewell")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)  # type: ignore[arg-type]
    rows = samples.encode(Lesson(where="line 1", turns=messages), tokenizer, 256)
    assert [tokenizer.decode(row.tokens[slice(*row.answers[0])]) for row in rows] == ["hello", "farewell"]


CHAT = tuple(
    Message(role=role, content=content)  # type: ignore[arg-type]
    for role, content in [
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "bye"),
        ("assistant", "<b>"),
        ("user", "?"),
        ("assistant", "!"),
    ]
)


@pytest.mark.parametrize(
    ("template", "rows"),
    [
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}<end>{% endfor %}assistant:", [[1, 3, 5]]),
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}assistant:", [[1, 3, 5]]),
        ("{% for m in messages %}{{ m.role }}:{{ m.content | replace('<b>', 'b') }}\n{% endfor %}assistant:", [[3], [1, 5]]),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:", [[1], [3], [5]]),
        ("{% for m in messages %}{{ m.content if loop.first or m.role == 'assistant' }}{% endfor %}", [[3], [1, 5]]),
    ],
    ids=["another end than the model's", "no end", "an answer is written otherwise", "a blank before each", "nothing between"],
)
def test_each_answer_is_learned_behind_the_tokens_it_is_served_behind_in_as_few_rows_as_can_be(
    tiny_gguf: Path, template: str, rows: list[list[int]]
) -> None:
    """And what ends it is the model's own end token, whatever stands there to be read."""
    tokenizer = from_metadata(GGUFFile(tiny_gguf).metadata)
    tokenizer.chat_template = template
    made = samples.encode(Lesson(where="line 1", turns=CHAT), tokenizer, 256)
    assert len(made) == len(rows)
    _, targets = samples.side_by_side(made, 0)
    for sample, row_T, places in zip(made, targets, rows, strict=True):
        for (start, stop), at in zip(sample.answers, places, strict=True):
            assert sample.tokens[:start] == tokenizer.encode(tokenizer.render(CHAT[:at]))
            assert list(row_T[start - 1 : stop - 1]) == [*tokenizer.encode(CHAT[at].content), tokenizer.special.eos_id]
        assert (row_T != samples.NOT_LEARNED).sum() == sample.num_learned


def test_lessons_with_one_answer_are_cut_together_and_are_the_same_as_each_by_itself(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same order, with longer conversations and too long ones between them."""
    chats = [
        f"|hi {n}|ho {n % 3}" + f"|and {n}|well" * (n % 5 == 0) + " long" * (200 if n % 7 == 0 else 100_000 if n % 11 == 0 else 0)
        for n in range(80)
    ]
    lessons = read(write_chats(tmp_path / "c.jsonl", *chats)).lessons
    tokenizer, encode, cut = GGUFFile(tiny_gguf).read_tokenizer(), Tokenizer.encode_many, list[int]()
    alone = [samples.encode(lesson, tokenizer, 256) for lesson in lessons]

    def encode_many(self: Tokenizer, texts: list[str], **how: bool) -> Iterator[list[int]]:
        cut.append(len(texts))
        return encode(self, texts, **how)

    monkeypatch.setattr(Tokenizer, "encode_many", encode_many)
    made = samples.encode_many(lessons, tokenizer, 256)
    assert made == alone and {len(one) for one in made} >= {0, 1}
    assert max(cut) > 50 and len(cut) < 70  # the 16 with two answers are cut by themselves


def test_a_long_conversation_is_cut_into_tokens_once(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each of its answers."""
    tokenizer, encode, cut = GGUFFile(tiny_gguf).read_tokenizer(), Tokenizer.encode_many, list[str]()

    def encode_many(self: Tokenizer, texts: list[str], **how: bool) -> Iterator[list[int]]:
        cut.extend(texts)
        return encode(self, texts, **how)

    monkeypatch.setattr(Tokenizer, "encode_many", encode_many)
    pair = [("user", "what is {}?"), ("assistant", "it is what it is: {}")]
    messages = tuple(Message(role=role, content=text.format(at)) for at in range(50) for role, text in pair)  # type: ignore[arg-type]
    (row,) = samples.encode(Lesson(where="line 1", turns=messages), tokenizer, 100_000)
    whole = tokenizer.render(messages[:-1])
    assert row.tokens[: row.answers[-1][0]] == tokenizer.encode(whole) and len(row.answers) == 50
    assert sum(map(len, cut)) < 3 * len(whole)  # with each answer by itself, and the template's sign for it


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def of_sentencepiece(metadata: dict[str, object]) -> Tokenizer:
    """A blank before each text, and `▁h` is one token, as in Llama 1 and 2."""
    pieces = ["<unk>", "<|im_start|>", "<|im_end|>", *BYTES, "▁", "h", "▁h"]
    facts = {"model": "llama", "tokens": pieces, "scores": [0.0] * len(pieces), "token_type": [2, 3, 3, *[6] * 256, 1, 1, 1]}
    return from_metadata({"general.architecture": "llama", **as_metadata(facts | {"bos_token_id": 1, "eos_token_id": 2})})


def of_bytes(metadata: dict[str, object]) -> Tokenizer:
    """`:*` is one token."""
    more = {"tokens": [*vocabulary(), ":*"], "merges": [*MERGES, ": *"], "token_type": [3, 3, 3, *[1] * (len(vocabulary()) - 2)]}
    return from_metadata(metadata | as_metadata(more))


def as_metadata(facts: dict[str, object]) -> dict[str, object]:
    return {f"tokenizer.ggml.{name}": value for name, value in facts.items()}


@pytest.mark.parametrize(
    ("made", "sign", "answer", "learned"),
    [
        (of_sentencepiece, "assistant:", "hi", [1, 1]),
        (of_sentencepiece, "assistant: ", "hi", [2]),
        (of_bytes, "assistant:", "**Yes**", [1, 1]),
        (of_bytes, "assistant:", "Yes", [2]),
    ],
)
def test_an_answer_that_is_other_tokens_behind_what_asks_for_it_is_a_row_of_its_own(
    tiny_gguf: Path, made: Callable[[dict[str, object]], Tokenizer], sign: str, answer: str, learned: list[int]
) -> None:
    """Though each prompt's text begins with the one before, its answer, and the model's end token."""
    tokenizer = made(GGUFFile(tiny_gguf).metadata)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '" + sign + "' if m.role == 'assistant' }}{{ m.content }}<|im_end|>{% endfor %}" + sign.strip()
    )
    turns = [("user", "?"), ("assistant", answer), ("user", "!"), ("assistant", "end")]
    messages = tuple(Message(role=role, content=content) for role, content in turns)  # type: ignore[arg-type]
    rows = samples.encode(Lesson(where="line 1", turns=messages), tokenizer, 256)
    assert [len(row.answers) for row in rows] == learned
    prompts = [row.tokens[:start] for row in rows for start, _ in row.answers]
    assert prompts == [tokenizer.prompt_ids(Request(messages=messages[:at])) for at in (1, 3)]


def test_a_conversation_of_several_rows_is_said_and_counted(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_chats(tmp_path / "c.jsonl", *(f"|hi {n}|a|on {n}|b|out {n}|c" for n in range(20)))
    said = "rows: 60 of 20 conversations: with this chat template some answers are other tokens when they are read later on"
    for template, num_rows in ((None, 20), ("gemma", 20), ("vicuna_v1.1", 60)):
        prepared = prepare(str(tiny_gguf), path, template=template)
        assert prepared.survey.num_rows == num_rows
        say_survey(prepared)
        survey = capsys.readouterr().err
        assert (said in survey) == (num_rows == 60)
        assert (" tokens; a row has " if num_rows == 60 else " tokens; a lesson has ") in survey


def test_of_a_conversation_that_is_too_long_one_prompt_alone_is_written(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[int] = []
    render = Tokenizer.render
    monkeypatch.setattr(
        Tokenizer, "render", lambda self, messages, *given: (rendered.append(len(messages)), render(self, messages, *given))[1]
    )
    path = write_chats(tmp_path / "c.jsonl", "|" + "|".join(["some words"] * 60))
    with pytest.raises(DataError, match=r"line 1: 1,\d+ tokens, and the model's context is 256"):
        prepare(str(tiny_gguf), path)
    assert rendered == [59]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            "",
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nAdd.\n\n### Response:",
        ),
        (
            "1 2",
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:",
        ),
    ],
)
@pytest.mark.parametrize("template", [None, "alpaca"])
def test_alpaca_s_two_texts_are_what_a_model_without_a_template_of_its_own_is_asked(
    tmp_path: Path, extra: str, expected: str, template: str | None
) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": "Add.", "input": extra, "output": "3"}, {"instruction": "Say.", "output": "x"}]))
    base = write_tiny_gguf(tmp_path / "base.gguf", template=None)
    prepared = prepare(str(base), path, template=template)
    assert prepared.options["template"] == "alpaca"
    tokenizer = from_metadata(GGUFFile(base).metadata)
    sample = prepared.samples[0]
    assert tokenizer.decode(sample.tokens[: sample.answers[0][0]]) == expected


def test_what_was_said_before_alpaca_s_question_is_read_before_it(tmp_path: Path) -> None:
    path, base = tmp_path / "alpaca.json", write_tiny_gguf(tmp_path / "base.gguf", template=None)
    last = {"instruction": "Add.", "input": "1 2", "output": "3"}
    path.write_text(json.dumps([{**last, "system": "Be brief.", "history": [["Hi.", "Ho."]]}, last]))
    tokenizer = from_metadata(GGUFFile(base).metadata)
    (sample, _) = prepare(str(base), path).samples
    end = tokenizer.backend.id_to_token(tokenizer.special.eos_id)
    assert tokenizer.backend.decode(sample.tokens, skip_special_tokens=False).removesuffix(end).split(end) == [
        "Be brief.\n\n### Instruction:\nHi.\n\n### Response:Ho.",
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:3",
    ]
    assert len(sample.answers) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "rwkv"}, "the architecture `rwkv` is not one that nomoat can import"),
        ({}, "has its norms after its layers, as OPT-350M: that cannot be tuned yet"),
    ],
)
def test_a_folder_that_cannot_be_tuned_says_so(tmp_path: Path, change: dict[str, str], message: str) -> None:
    _, folder = write_folder(tmp_path / "model", "opt 350m")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(UnsupportedError, match=message) as refused:
        prepare(str(folder), write(tmp_path / "t.csv", ("one", "a"), ("two", "b")), **COLUMNS)
    assert refused.value.hint


@pytest.mark.parametrize("base", ["openai:gpt-4o", "auto", "fake:", "stored:x/y"])
def test_what_has_no_weights_here_cannot_be_tuned(base: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"`{base}` has no weights on this disk to tune"):
        prepare(base, tmp_path / "never-read.csv")


def test_keeping_what_the_test_has_needs_a_test(tiny_gguf: Path, tmp_path: Path) -> None:
    """Written down as a setting, it would stand in the way of --resume without it."""
    path = write(tmp_path / "t.csv", ("one", "a"), ("two", "b"))
    with pytest.raises(UsageError) as caught:
        prepare(str(tiny_gguf), path, keep_shared=True, **COLUMNS)
    assert caught.value.message == "texts shared with a test file are to be kept, and no test file is named"
    assert caught.value.hint == "give --test FILE, or leave out --keep-shared (in Python: `test`, `keep_shared`)"


@pytest.mark.usefixtures("empty_home")
def test_a_card_s_file_that_is_another_since_it_was_pulled_is_not_tuned(tiny_gguf: Path, tmp_path: Path) -> None:
    """What it learned would answer beside other weights."""
    source = cards.card("smollm2-135m").sources[0]
    file = paths.models() / "smollm2-135m" / source.file_name
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny_gguf.read_bytes())
    with pytest.raises(BadFileError, match="is not the file that the catalogue names for `smollm2-135m`"):
        prepare("smollm2-135m", write(tmp_path / "t.csv", ("one", "a"), ("two", "b")), **COLUMNS)


def test_labels_that_case_spaces_signs_or_the_writing_of_a_number_alone_tell_apart_are_named(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("one", "True"), ("two", "true"), ("three", "TRUE "), ("four", "매우 나쁨"), ("five", "매우  나쁨"), ("six", "매우나쁨")]
    rows += [("seven", "1"), ("eight", "1.0"), ("nine", "+1"), ("ten", "1.5"), ("eleven", "2"), ("twelve", "v2")]
    rows += [
        ("13", "긍정"),
        ("14", "긍정\u200b"),
        ("15", "긍\ufeff정"),
        ("16", "ｎｏ"),
        ("17", "no"),
        ("18", "👩‍💻"),
        ("19", "👩💻"),
        ("20", "긍정\u3164"),
    ]
    path = write(tmp_path / "t.csv", *rows)
    say_survey(prepare(str(tiny_gguf), path, **COLUMNS))
    said = "".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("note: labels"))
    assert said == (
        "note: labels that differ only in upper and lower case, in width, in spaces and what is not seen, in signs around them, "
        "or in how a number is written: `True`, `true`, `TRUE`; `매우 나쁨`, `매우  나쁨`, `매우나쁨`; `1`, `1.0`, `+1`; `긍정`, "
        "`긍정⟨U+200B⟩`, `긍⟨U+FEFF⟩정`, `긍정⟨U+3164⟩`; `ｎｏ`, `no`"
    )
    signs = ("one", "긍정"), ("two", "긍정."), ("three", "C"), ("four", "C++"), ("five", "-5"), ("six", "5")
    say_survey(prepare(str(tiny_gguf), write(path, *signs), **COLUMNS))
    assert "is written: `긍정`, `긍정.`\n" in capsys.readouterr().err
    say_survey(prepare(str(tiny_gguf), write(path, ("one", "true"), ("two", "no")), **COLUMNS))
    assert "upper and lower case" not in capsys.readouterr().err


def test_labels_that_tables_write_for_nothing_are_named(tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("one", "a"), ("two", "NaN"), ("three", "NaN"), ("four", "#REF!"), ("five", "none"), ("six", "n/a yet")]
    say_survey(prepare(str(tiny_gguf), write(tmp_path / "t.csv", *rows), **COLUMNS))
    note = "note: labels that tables write where there is nothing, or a fault: NaN 2, #REF! 1, none 1\n"
    assert note in capsys.readouterr().err


def test_labels_that_hold_line_breaks_stay_on_the_line(tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\none,a\ntwo,"b\nc"\n', encoding="utf-8", newline="\n")
    say_survey(prepare(str(tiny_gguf), path, **COLUMNS))
    said = capsys.readouterr().err
    assert "labels: a 1, b⟨U+000A⟩c 1\n" in said
    assert "note: labels that hold commas or line breaks look like several where the question lists them: b⟨U+000A⟩c; " in said


def test_labels_that_hold_commas_are_told_apart_where_they_are_listed(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text('text,label\none,a\ntwo,b\nthree,"a, b"\n', encoding="utf-8")
    prepared = prepare(str(tiny_gguf), path, **COLUMNS)
    assert prepared.survey.question == kept_question(["a", "b", "a, b"])
    note = (
        "note: labels that hold commas or line breaks look like several where the question lists them: `a, b`; "
        "an --instruction (in Python: `instruction`) can tell them apart\n"
    )
    say_survey(prepared)
    said = capsys.readouterr().err
    assert "labels: a 1, b 1, `a, b` 1\n" in said and note in said
    say_survey(prepare(str(tiny_gguf), path, instruction='"a", "b" or "a, b"?', **COLUMNS))
    assert note not in capsys.readouterr().err
    with pytest.raises(DataError, match="label `c` is not one of a, `a, b`, b"):
        prepare(str(tiny_gguf), path, validation=write(tmp_path / "dev.csv", ("four", "c")), **COLUMNS)


def test_settings_follow_the_data_and_the_model() -> None:
    few, many = (
        chosen(Settings(), num_lessons=100, width=576, layers=2, can_add_layers=True),
        chosen(Settings(), num_lessons=10_000, width=1536, layers=2, can_add_layers=True),
    )
    assert (few.epochs, few.batch, few.learning_rate) == (6.0, 4, 2e-3)
    assert (many.epochs, many.batch, many.learning_rate) == (3.0, 16, 1.2e-3)
    assert chosen(Settings(epochs=1, batch=7, learning_rate=1e-5), num_lessons=9, width=9, layers=5, can_add_layers=True).layers == 3
    with pytest.raises(UsageError) as refused:
        chosen(Settings(layers=6), num_lessons=9, width=9, layers=5, can_add_layers=True)
    assert (refused.value.message, refused.value.hint) == ("layers is 6, and the model has 5", "give 5 at most")


def test_noise_needs_all_layers_to_learn() -> None:
    with pytest.raises(UsageError) as refused:
        chosen(Settings(noise=5, layers=4), num_lessons=9, width=9, layers=5, can_add_layers=True)
    assert (refused.value.message, refused.value.hint) == (
        "noise is 5, and it needs all 5 layers to learn; the upper 4 do",
        "add --layers 5 (in Python: `layers`)",
    )
    assert chosen(Settings(noise=5, layers=5), num_lessons=9, width=9, layers=5, can_add_layers=True).noise == 5
    assert chosen(Settings(), num_lessons=9, width=9, layers=5, can_add_layers=True).noise == 0


def test_labels_that_a_teacher_had_to_choose_from_are_asked_for_though_no_row_has_them(
    tiny_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,kind,label\none,x,good\ntwo,y,bad\nthree,x,good\n", encoding="utf-8")
    facts = {"settings": {"kind": "labels", "labels": ["good", "bad", "neutral"]}}
    with sidecar.saving(path, sha256=paths.sha256_of(path), teacher="m", parents=[], facts=facts):
        pass
    prepared = prepare(str(tiny_gguf), path, **COLUMNS)
    assert prepared.survey.question == kept_question(["bad", "good", "neutral"])
    assert prepared.survey.labels == {"good": 2, "bad": 1, "neutral": 0}
    say_survey(prepared)
    said = capsys.readouterr().err
    assert "labels: good 2, bad 1\n" in said and "labels asked for without a row to learn from: neutral\n" in said
    other = prepare(str(tiny_gguf), path, input_column="text", label_column="kind")
    assert other.data.labels == ("x", "y")  # a column that is not the teacher's


def test_who_tunes_from_python_is_told_what_the_command_line_says_of_the_data(
    tiny_gguf: Path, tmp_path: Path, begun: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is learned."""
    path, told = write(tmp_path / "t.csv", ("one", "True"), ("one", "true"), ("two", "true")), list[str]()
    with pytest.raises(begun):
        nomoat.tune(str(tiny_gguf), path, name="told", on_message=told.append, **COLUMNS)
    say_survey(prepare(str(tiny_gguf), path, **COLUMNS))
    assert told == capsys.readouterr().err.splitlines()
    assert any(line.startswith("note: labels that differ only in upper and lower case") for line in told)
    assert "repeated: 1 lesson asks what an earlier one asks, 1 of them with another label" in told
