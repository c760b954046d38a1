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
