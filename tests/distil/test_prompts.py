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
        "4. Sort the words.\nInput: b a\nOutput: a\nb\n\n5. Name the largest planet.\nInput: <noinput>\nOutput: Jupiter",
        "**4. Sort the words.**\n\n**Input:** b a\n\n**Output:** a\nb\n\n**5. Name the largest planet.**\n\n**Output:** Jupiter",
        "Question: Sort the words.\nContext: b a\nAnswer: a\nb\n\nQuestion: Name the largest planet.\nAnswer: Jupiter",
        "4. Prompt: Sort the words.\nInput: b a\nCompletion: a\nb\n\n5. Prompt: Name the largest planet.\nCompletion: Jupiter",
        "**Q4:** Sort the words.\nInput: b a\n**A4:** a\nb\n\n**Q5:** Name the largest planet.\n**A5:** Jupiter",
        "4. **Task**: Sort the words.\nInput: b a\nOutput: a\nb\n\n5. **Task**: Name the largest planet.\nOutput: Jupiter",
        "4.\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n5.\nInstruction: Name the largest planet.\nInput: N/A\n"
        "Output: Jupiter",
        "4. 지시: Sort the words.\n입력: b a\n출력: a\nb\n5. 지시: Name the largest planet.\n입력: 없음\n출력: Jupiter",
        "4. 지시사항: Sort the words.\n입력: b a\n출력: a\nb\n5. 지시사항: Name the largest planet.\n입력: 입력 없음\n출력: Jupiter",
        "명령: Sort the words.\n입력: b a\n결과: a\nb\n\n명령: Name the largest planet.\n입력: (없음)\n결과: Jupiter",
        "4. 指令：Sort the words.\n输入：b a\n输出：a\nb\n5. 指令：Name the largest planet.\n输入：无\n输出：Jupiter",
        "4. 指示：Sort the words.\n入力：b a\n出力：a\nb\n5. 指示：Name the largest planet.\n入力：なし\n出力：Jupiter",
        "Instruction 4: Sort the words.\nInput: b a\nOutput: a\nb\n\nInstruction 5: Name the largest planet.\n"
        "Input: -\nOutput: Jupiter",
        "**Instruction 4:** Sort the words.\n**Input 4:** b a\n**Output 4:** a\nb\n\n**Instruction #5:** Name the largest planet.\n"
        "**Output #5:** Jupiter",
        "• Instruction: Sort the words.\n• Input: b a\n• Output: a\nb\n\n• Instruction: Name the largest planet.\n• Output: Jupiter",
        "4. Task: Sort the words.\nInput: b a\nAnswer: a\nb\n\n5. Task: Name the largest planet.\nAnswer: Jupiter",
        "4. Instruction: Sort the words.\nInput: b a\nExpected Output: a\nb\n\n5. Instruction: Name the largest planet.\n"
        "Expected output: Jupiter",
        "Task 4: Sort the words.\nInput: b a\nOutput: a\nb\n\nTask 5: Name the largest planet.\nOutput: Jupiter",
        "### Task 4: Words\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n\n### Task 5: Planets\n"
        "Instruction: Name the largest planet.\nOutput: Jupiter",
        "### 4. Words\n\n**Instruction**\nSort the words.\n\n**Input**\nb a\n\n**Output**\na\nb\n\n---\n\n### 5. Planets\n\n"
        "**Instruction**\nName the largest planet.\n\n**Output**\nJupiter",
        "**4. Words**\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n\n**5. Planets**\n"
        'Instruction: Name the largest planet.\nInput: ""\nOutput: Jupiter',
        "```\n4. Instruction: Sort the words.\nInput: b a\nOutput: a\nb\n\n"
        "5. Instruction: Name the largest planet.\nOutput: Jupiter\n```",
        "Here:\n```text\n4.\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n```\n\n5.\n```text\n"
        "Instruction: Name the largest planet.\nOutput: Jupiter\n```\n\nDo you like them?",
        "<think>\nSome drafts:\n4. Instruction: Draft a thing.\nInput: a\nOutput: b\n</think>\n\n"
        "4. Instruction: Sort the words.\nInput: b a\nOutput: a\nb\n5. Instruction: Name the largest planet.\nOutput: Jupiter",
        "4. Instruction: Draft a thing.\nOutput: b\n</think>\n"
        "4. Instruction: Sort the words.\nInput: b a\nOutput: a\nb\n5. Instruction: Name the largest planet.\nOutput: Jupiter",
        "4. Instruction: Sort the words.\nInput: b a\nOutput: a\nb\n\n5. Instruction: Name the largest planet.\nOutput: Jupiter\n\n"
        "I hope these tasks are helpful! Let me know if you need anything else.",
        "4. 지시: Sort the words.\n입력: b a\n출력: a\nb\n5. 지시: Name the largest planet.\n출력: Jupiter\n"
        "\n이 과제들이 도움이 되길 바랍니다!",
        '```json\n[{"instruction": "Sort the words.", "input": "b a", "output": "a\\nb"},\n'
        ' {"Instruction": "Name the largest planet.", "Input": null, "Output": "Jupiter"}]\n```',
        "### 과제 4\n지시: Sort the words.\n입력: b a\n출력: a\nb\n\n### 과제 5\n지시: Name the largest planet.\n출력: Jupiter",
        "**과제 4: 낱말**\n지시어: Sort the words.\n입력값: b a\n출력값: a\nb\n\n**과제 5: 행성**\n지시어: Name the largest planet.\n"
        "입력값: 입력없음\n출력값: Jupiter",
        "4번 과제\n지시: Sort the words.\n입력: b a\n출력: a\nb\n\n5번 과제:\n지시: Name the largest planet.\n입력: 해당없음\n"
        "출력: Jupiter",
        "Example 4:\nInstruction: Sort the words.\nInput: b a\nOutput: a\nb\n\nExample 5:\nInstruction: Name the largest planet.\n"
        "Output: Jupiter",
        "예시 4번. 명령어: Sort the words.\n입력: b a\n응답: a\nb\n\n예시 5번. 명령어: Name the largest planet.\n응답: Jupiter",
        "4. [지시] Sort the words.\n[입력] b a\n[출력] a\nb\n\n5. [지시]: Name the largest planet.\n"
        "[입력]: 없습니다.\n[출력]: Jupiter",
        "4. <지시>: Sort the words.\n<입력>: b a\n<출력>: a\nb\n5. <지시>: Name the largest planet.\n<출력>: Jupiter",
        "4. 지시(Instruction): Sort the words.\n입력 (Input): b a\n출력(Output): a\nb\n\n5. 지시(Instruction): "
        "Name the largest planet.\n출력(Output): Jupiter",
        "## 4\n### Instruction\nSort the words.\n### Input\nb a\n### Output\na\nb\n\n## 5\n### Instruction\n"
        "Name the largest planet.\n### Output\nJupiter",
        "**4. 지시**\nSort the words.\n**입력**\nb a\n**출력**\na\nb\n\n**5. 지시**\nName the largest planet.\n**출력**\nJupiter",
        '{"작업": "Two tasks.", "과제": [{"지시": "Sort the words.", "입력": "b a", "출력": "a\\nb"},\n'
        '{"task": "5", "지시사항": "Name the largest planet.", "입력": "필요 없음", "답변": "Jupiter"}]}',
        '[{"task": "Sort the words.", "input": "b a", "answer": "a\\nb"},\n'
        '{"task": "Name the largest planet.", "response": "Jupiter"}]',
        '{"tasks": [{"instruction": "Sort the words.", "input": "b a", "output": "a\\nb"},\n'
        '{"instruction": "Name the largest planet.", "input": "<noinput>", "output": "Jupiter"}, {"instruction": "Cut',
    ],
)
def test_tasks_are_found_however_they_are_decorated(answer: str) -> None:
    assert parse_tasks(answer) == WANTED


def test_lines_of_an_output_that_look_like_fields_are_part_of_it() -> None:
    (task,) = parse_tasks(
        "1. Instruction: Write a form for a lab.\nInput: <noinput>\nOutput: Name:\nInput: the sample\nTask: weigh it"
    )
    assert task.output == "Name:\nInput: the sample\nTask: weigh it"


@pytest.mark.parametrize("line", ["결과", "<output>", "#### Step 1", "과제를 정리했습니다.", "예시 2개", "Input"])
def test_a_line_with_a_field_s_name_and_no_mark_begins_none(line: str) -> None:
    assert parse_tasks(f"1. Instruction: Repair it.\nInput: <form>\n{line}\nOutput: Done.")[0].input == f"<form>\n{line}"


@pytest.mark.parametrize(
    "text",
    [
        "# Tool\n## Input\na file\n## Output\na table", "**Input**\n3\n**Output**\n9", "[Output] b",
        "A template\n### Instruction\n{x}", "안내문\n지침: 손을 씻는다\n문의: 1234", "종류\n지시어: 이, 그, 저",
        "입력값: 3\n출력값: 9", "안내\n**지시**\n앉는다", "예문\n[지시] 앉으세요\n[입력] 표",
    ],
)  # fmt: skip
def test_headings_and_usual_words_in_texts_are_theirs_where_the_fields_have_the_form_asked_for(text: str) -> None:
    answer = f"1. Instruction: Explain it.\nInput: {text}\nOutput: {text}\n\n2. Instruction: Go on.\nInput: a\nOutput: b"
    assert parse_tasks(answer) == [
        Task(instruction="Explain it.", input=text, output=text),
        Task(instruction="Go on.", input="a", output="b"),
    ]


def test_a_line_with_a_colon_in_a_text_is_its_own_where_the_fields_are_headings() -> None:
    shown = "### Instruction\nExplain it.\n### Input\nOutput: 5\n### Output\nfive"
    tasks = parse_tasks(f"### Task 1: Signs\n{shown}\n\n### Task 2: Signs\n{shown}")
    assert tasks == [Task(instruction="Explain it.", input="Output: 5", output="five")] * 2


@pytest.mark.parametrize("last", ["## 2024", "Example 3", "예제 3", "3번 예시", "작업 1\n작업 2"])
def test_a_last_line_with_a_number_that_is_not_the_next_task_s_stays(last: str) -> None:
    answer = f"4. Instruction: Pick one.\nInput: a\nOutput: It is\n{last}\n\n5. Instruction: Go on.\nInput: a\nOutput: b"
    assert parse_tasks(answer)[0].output == f"It is\n{last}"


@pytest.mark.parametrize(
    "answer",
    [
        '{"task": "generate", "result": [{"instruction": "Sort.", "output": "a"}]}',
        '{"task": "generate", "output": {"instruction": "Sort.", "output": "a"}}',
        '{"요청": "과제 하나", "응답": "네", "목록": [{"지시": "Sort.", "출력": "a"}]}',
        '{"task": "generate", "output": {"tasks": [{"instruction": "Sort.", "output": "a"}]}}',
    ],
)
def test_json_tasks_within_an_object_with_usual_words_are_the_tasks(answer: str) -> None:
    assert parse_tasks(answer) == [Task(instruction="Sort.", input="", output="a")]


@pytest.mark.parametrize(("instruction", "output"), [("task", "output"), ("과제", "결과"), ("지시어", "출력값")])
def test_a_json_task_under_usual_words_may_have_an_object_for_its_output(instruction: str, output: str) -> None:
    tasks = parse_tasks(f'{{"{instruction}": "Find the name.", "input": "I am Ann.", "{output}": {{"name": "Ann"}}}}')
    assert tasks == [Task(instruction="Find the name.", input="I am Ann.", output='{"name": "Ann"}')]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}Instruction: {}\nInput: {}\nOutput: {}", "### {}Instruction\n{}\n### Input\n{}\n### Output\n{}"),
        ("### {}Instruction\n{}\n### Input\n{}\n### Output\n{}", "{}Instruction: {}\nInput: {}\nOutput: {}"),
        ("[지시] {}{}\n[입력] {}\n[출력] {}", "[지시] {}{}\n입력: {}\n출력: {}"),
        ("### Instruction:\n{}{}\n### Input:\n{}\n### Output:\n{}", "### Instruction:\n{}{}\n### Input:\n{}\n### Output\n{}"),
    ],
)
def test_tasks_of_an_answer_in_two_forms_are_kept_apart(first: str, second: str) -> None:
    numbers = ("4. ", "5. ") if first.startswith(("{}", "### {}")) else ("", "")
    shown = [form.format(number, "Do it.", "a", at) for form, number, at in zip((first, second), numbers, "bc", strict=True)]
    assert [(task.input, task.output) for task in parse_tasks("\n\n".join(shown))] == [("a", "b"), ("a", "c")]


def test_a_choice_named_by_a_letter_is_no_answer() -> None:
    choices = "Which is a river?\nA: The Han\nB: The Alps"
    wanted = [Task(instruction=choices, input="", output="A")]
    assert parse_tasks(f"4. Instruction: {choices}\nOutput: A") == parse_tasks(f"4. Q: {choices}\nAnswer: A") == wanted


def test_an_answer_named_by_a_letter_may_hold_a_line_that_looks_like_another_output() -> None:
    found = parse_tasks("Q: Add 1 and 1.\nA: 2\n\nQ: Add 2 and 3.\nA: Both are added.\nResult: 5\n\nQ: Name a river.\nA: The Han.")
    assert [task.output for task in found] == ["2", "Both are added.\nResult: 5", "The Han."]


def test_a_list_in_an_output_is_no_task_where_tasks_have_a_number_alone() -> None:
    listed = "1. One.\n2. Two.\n5. Five."
    assert parse_tasks(f"4. Name numbers.\nOutput:\n{listed}\n\n5. Name a river.\nOutput: The Han.") == [
        Task(instruction="Name numbers.", input="", output=listed), Task(instruction="Name a river.", input="", output="The Han.")
    ]  # fmt: skip


def test_the_last_json_task_that_was_cut_is_an_empty_one() -> None:
    answer = '{"instruction": "Name a river.", "output": "The Han."}\n{"instruction": "Name'
    whole = Task(instruction="Name a river.", input="", output="The Han.")
    assert parse_tasks(answer) == [whole]
    assert parse_tasks(answer, is_cut=True) == [whole, Task(instruction="", input="", output="")]


def test_letters_apart_are_an_input() -> None:
    assert parse_tasks("1. Instruction: Join the letters.\nInput: n o n e\nOutput: none")[0].input == "n o n e"


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


@pytest.mark.parametrize("last", ["### 7. Rest", "**5. Rest:** Sleep.", "5. Rest"])
@pytest.mark.parametrize("first", ["### 4. Health", "4."])
def test_a_numbered_line_of_an_output_is_no_title_of_the_next_task(first: str, last: str) -> None:
    answer = f"{first}\nInstruction: Give some advice.\nOutput: Walk.\n{last}\n\nInstruction: Name a lake.\nOutput: Baikal"
    assert [task.output for task in parse_tasks(answer)] == [f"Walk.\n{last}", "Baikal"]


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


@pytest.mark.parametrize(
    "text",
    ["<no input>", "(no input)", "<NOINPUT>", "No input needed", "Not applicable.", "-", "입력 없음", "`None`", "[N/A]", '""', "“”"],
)
def test_words_for_no_input_are_none(text: str) -> None:
    assert parse_tasks(f"1. Instruction: Name a lake.\nInput: {text}\nOutput: Baikal")[0].input == ""


@pytest.mark.parametrize("text", ["[]", "-5", "<b>", "None of the above", "()"])
def test_an_input_that_says_something_stays(text: str) -> None:
    assert parse_tasks(f"1. Instruction: Explain this.\nInput: {text}\nOutput: It is.")[0].input == text


CODE = "```python\nprint(1)\n```"


def test_fences_of_a_task_stay_also_in_a_fence_around_all() -> None:
    answer = f"4. Instruction: Fix it.\nInput:\n{CODE}\nOutput:\n{CODE}\n\n5. Instruction: Write code.\nOutput:\n{CODE}"
    wanted = [Task(instruction="Fix it.", input=CODE, output=CODE), Task(instruction="Write code.", input="", output=CODE)]
    assert parse_tasks(answer) == wanted
    assert parse_tasks(f"Sure:\n\n```\n{answer}\n```\nEnjoy!") == wanted
    assert parse_tasks(f"```\n{answer}") == wanted  # never closed


@pytest.mark.parametrize(
    "output",
    [
        "Dear Bob,\n\nthe door is green.\n\nLet me know if you have any questions.",
        "We open at nine.\n\nI hope these hours suit you.",
        "1. Eat.\n\nWe close at five.\nAnswer: no",
        "Keep it in shade.\n\nIf you follow these instructions carefully, your fern will thrive.",
        "Use plurals.\n\nIf you need more examples, see the appendix.",
        "Hi team,\n\nPlease let me know when you have finished the tasks.",
        "Hi team,\n\nLet me know whether these new tasks are clear.",
        "I am done.\n\nLet me know if you would like me to take on more tasks.",
        "Stretch first.\n\nThese tasks take an hour each.",
        "Dear Ann,\n\nLet me know if you need further instructions.",
        "설계는 끝났다.\n\n남은 작업에는 시간이 더 필요하다.",
        "보고합니다.\n\n이 과제는 학생들에게 도움이 되었다.",
        "보고합니다.\n\n이 과제를 끝내려면 사람이 더 필요하다.",
    ],
)
def test_a_letter_may_close_as_an_answer_does(output: str) -> None:
    assert parse_tasks(f"1. Instruction: Write a letter.\nOutput: {output}")[0].output == output


@pytest.mark.parametrize(
    "closing",
    [
        "I hope these tasks are helpful! Let me know if you need anything else.",
        "Hope these ten examples help.",
        "Let me know if you need more tasks!",
        "Please let me know if you'd like me to write some more Korean examples.",
        "If you want additional tasks, let me know.",
        "Feel free to ask for more examples.",
        "Would you like me to generate more tasks?",
        "이 과제들이 도움이 되길 바랍니다!",
        "위의 예시들이 도움이 되었으면 좋겠습니다.",
        "과제가 더 필요하시면 말씀해 주세요.",
        "추가 예시가 필요하면 알려 주세요.",
    ],
)
def test_closing_words_that_speak_of_the_tasks_are_part_of_none(closing: str) -> None:
    assert parse_tasks(f"1. Instruction: Name a lake.\nOutput: Baikal\n\n{closing}")[0].output == "Baikal"


def test_a_draft_within_a_task_is_part_of_it() -> None:
    answer = "1. Instruction: Explain think tags.\nOutput: Use <think>a</think> there.\n2. Instruction: Name a lake.\nOutput: Baikal"
    assert [task.output for task in parse_tasks(answer)] == ["Use <think>a</think> there.", "Baikal"]


def test_names_that_are_usual_in_texts_count_only_where_there_is_no_other() -> None:
    (task,) = parse_tasks("1. Instruction: Judge the answer.\nInput: Who?\nAnswer: Ann\nResult: 5\nOutput: It is right.")
    assert (task.input, task.output) == ("Who?\nAnswer: Ann\nResult: 5", "It is right.")


def test_numbers_behind_names_are_those_of_the_task_or_part_of_the_text() -> None:
    (task,) = parse_tasks("3. Instruction: Put these in order.\nTask 1: wash\nTask 2: cook\nOutput: Task 1: cook\nInput 2: none")
    assert (task.instruction, task.output) == ("Put these in order.\nTask 1: wash\nTask 2: cook", "Task 1: cook\nInput 2: none")
    (task,) = parse_tasks("3. Instruction: Add both.\nInput 1: 5\nInput 2: 6\nOutput: 11")
    assert task.instruction == "Add both.\nInput 1: 5\nInput 2: 6"


@pytest.mark.timeout(60)  # all of them take less than a second; where the time grows with the square of the length, each takes minutes
@pytest.mark.parametrize(
    "stuck",
    ["*", "_", "#", " ", "# ", "-", ">", "1", "task ", "1. Instruction: ", "<instruction>", "| ", "I hope these tasks ", "더 "],
)
def test_a_teacher_that_gets_stuck_in_a_line_holds_nobody_up(stuck: str) -> None:
    for before in ("", "task", "1", "Output", "이 과제 ", "도움이 되 "):
        line = before + stuck * (100_000 // len(stuck)) + "x"
        assert parse_tasks(f"1. Instruction: Name a lake.\nOutput: Baikal\n\n{line}\n\n{line}")[0].instruction == "Name a lake."


def test_a_number_of_thousands_of_digits_is_that_of_no_task() -> None:
    answer = f"1. Instruction: Name a lake.\nOutput: Baikal\n\n{'1' * 5000}. Instruction: Name a sea.\nTask {'2' * 5000}:"
    assert [task.instruction for task in parse_tasks(answer)] == ["Name a lake."]
