"""What a teacher is asked, and how its answer is read, however it is decorated."""

from __future__ import annotations

import pytest

from nomoat.distil.prompts import Task, parse_tasks, render_request

SEED = Task(instruction="Name a river.", input="", output="The Han.")


def test_request_shows_the_examples_numbered_and_asks_for_the_numbers_after_them() -> None:
    text = render_request([SEED, SEED], 3, language="Korean")
    assert text.startswith(
        "These are 2 tasks for a language model:\n\n"
        "1. Instruction: Name a river.\nInput: <noinput>\nOutput: The Han.\n\n"
        "2. Instruction: Name a river.\nInput: <noinput>\nOutput: The Han.\n\n"
        "Write 3 more of them.\n"
    )
    assert "numbered from 3 to 5" in text
    assert "one or two sentences, in Korean, and so are input and output." in text
    assert text.endswith("\n\n3. Instruction: what is to be done\nInput: the text it is done with, or <noinput>\nOutput: the result")


WANTED = [
    Task(instruction="Sort the words.", input="b a", output="a\nb"),
    Task(instruction="Name the largest planet.", input="", output="Jupiter"),
]


@pytest.mark.parametrize(
    "answer",
    [
        "4. Instruction: Sort the words.\nInput: b a\nOutput: a\nb\n\n5. Instruction: Name the largest planet.\nInput: <noinput>\n"
        "Output: Jupiter",
        "Sure! Here are more:\n\n4. **Instruction:** Sort the words.\n   **Input:** b a\n   **Output:** a\nb\n\n---\n\n"
        "5. **Instruction**: Name the largest planet.\n   **Input**: None.\n   **Output**: Jupiter\n",
        "### Task 4\nInstruction: Sort the words.\nInput:\nb a\nOutput:\na\nb\n\n### Task 5\nInstruction: Name the largest planet.\n"
        "Output: Jupiter\n###",
        "4. **Task**: Sort the words.\nInput: b a\nOutput: a\nb\n\n5. **Task**: Name the largest planet.\nOutput: Jupiter",
        "4.\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n5.\nInstruction: Name the largest planet.\nInput: N/A\n"
        "Output: Jupiter",
        "4. 지시: Sort the words.\n입력: b a\n출력: a\nb\n5. 지시: Name the largest planet.\n입력: 없음\n출력: Jupiter",
    ],
)
def test_tasks_are_found_however_they_are_decorated(answer: str) -> None:
    assert parse_tasks(answer) == WANTED


def test_lines_of_an_output_that_look_like_fields_are_part_of_it() -> None:
    (task,) = parse_tasks(
        "1. Instruction: Write a form for a lab.\nInput: <noinput>\nOutput: Name:\nInput: the sample\nTask: weigh it"
    )
    assert task.output == "Name:\nInput: the sample\nTask: weigh it"


def test_an_output_that_is_a_number_keeps_it() -> None:
    assert parse_tasks("1. Instruction: Add the two.\nInput: 40 and 2\nOutput:\n42")[0].output == "42"
    assert parse_tasks("1. Instruction: Add the two.\nInput: 40 and 2\nOutput: they are\n42")[0].output == "they are\n42"


def test_what_is_missing_of_a_task_is_empty_and_an_answer_without_tasks_has_none() -> None:
    assert parse_tasks("1. Instruction: Name a sea.\n2. Instruction: Name a lake.\nOutput: Baikal") == [
        Task(instruction="Name a sea.", input="", output=""),
        Task(instruction="Name a lake.", input="", output="Baikal"),
    ]
    assert parse_tasks("I cannot do that.\nOutput: none") == []


@pytest.mark.parametrize("first", [1, 4])
@pytest.mark.parametrize(
    "output",
    [
        "Here you are:\n1. Task: clean\n2. Task: wash",
        "The answer is\n5.",
        "1.\n2.\n3.",
        "1. Instruction: mix\n2. Instruction: bake\n3. Instruction: eat",
    ],
)
def test_numbered_lines_of_an_output_are_part_of_it(first: int, output: str) -> None:
    answer = f"{first}. Instruction: Plan a day.\nOutput: {output}"
    (task,) = parse_tasks(answer)
    assert task.output == output
    after = f"{first + 1}. Instruction: Name a lake.\nOutput: Baikal"
    assert [task.output for task in parse_tasks(f"{answer}\n\n{after}")] == [output, "Baikal"]


def test_a_number_on_a_line_of_its_own_leads_to_the_task_it_counts_only() -> None:
    answer = "4. Instruction: Count to three.\nOutput: 1.\n2.\n3.\n\n{}.\nInstruction: Name a lake.\nOutput: Baikal"
    assert [task.output for task in parse_tasks(answer.format(5))] == ["1.\n2.\n3.", "Baikal"]
    assert [task.output for task in parse_tasks(answer.format(4))] == ["1.\n2.\n3.\n\n4.", "Baikal"]


def test_tasks_whose_numbers_do_not_go_on_are_told_by_their_own_outputs() -> None:
    answer = (
        "1. Instruction: Name a sea.\nOutput: Aral\n1. Instruction: Name a lake.\nOutput: Baikal\n7. Task: Name a river.\nOutput: Han"
    )
    assert [task.output for task in parse_tasks(answer)] == ["Aral", "Baikal", "Han"]


def test_colons_may_be_as_wide_as_the_letters() -> None:
    assert parse_tasks("4. 지시：호수 하나를 쓰세요.\n입력：없음\n출력：바이칼\n5. **지시：** 강 하나를 쓰세요.\n**출력：** 한강") == [
        Task(instruction="호수 하나를 쓰세요.", input="", output="바이칼"),
        Task(instruction="강 하나를 쓰세요.", input="", output="한강"),
    ]
