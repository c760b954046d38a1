"""The report's Korean: no English sentence of it without a twin, no twin without its sentence, and the same values in both."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import jinja2
import pytest

import nomoat
from nomoat.judge import builtin, korean
from nomoat.judge.metrics import METRICS

SOURCE = Path(nomoat.__file__).parent
PAGES = sorted((SOURCE / "judge").glob("*.html.j2"))
# Whatever a note or a sentence of a verdict is made in, by file; a new one belongs here. Left out: what only errors and tables of the
# terminal say, and notes on imports for OpenVINO, which are read from its file.
MAKERS = {
    "asking/as_tuned.py": ["notes"],
    "conversations.py": ["_notes"],
    "labelling.py": ["note_on_commas"],
    "asking/cluster.py": ["names_of"],
    "asking/room.py": ["other_room_note"],
    "asking/spending.py": ["lost_note", "uncounted_note", "Spending.notes", "list_pricing", "_per_million", "Spending._price"],
    "asking/workers.py": ["notes"],
    "engine/arch/__init__.py": ["notes"],
    "engine/dialect.py": ["_notes"],
    "engine/remote.py": ["_about_it"],
    "engine/safetensors.py": ["_notes"],
    "judge/agreement.py": ["sentence", "order_words", "agreed_share", "share"],
    "judge/asked_notes.py": ["notes", "_kept_notes", "mispaired", "missing", "unbegun"],
    "judge/duel.py": ["run_duel", "_order_note", "_caveats", "_last", "_ask_all"],
    "judge/groups.py": ["_copies_note", "_group_note"],
    "judge/judged.py": ["run_graded", "_partial_note", "_pair_notes", "_judge_note"],
    "judge/kept.py": ["unasked_note", "named_otherwise"],
    "judge/model_judge.py": ["cut_note", "too_long_note"],
    "judge/power.py": ["_needed_note"],
    "judge/report.py": ["_settings", "_plots_of", "_side_rows", "write_duels_report"],
    "judge/run.py": ["_metric_note"],
    "judge/slices.py": ["slices_of", "note_on", "_thirds"],
    "judge/table.py": ["_sentence", "_reviewed_table"],
    "judge/verdict.py": ["notes_over_all", "_measures", "_could_turn", "same_model_note"],
    "judge/wording.py": [
        "render_items", "render_tally", "render_measure", "summary_of", "render_ahead", "several_sentence", "several_note",
        "score_sentence", "render_behind", "_points", "open_in_groups_note", "unread_words", "cut_words", "unnamed",
    ],
    "references.py": ["notes", "template"],
}  # fmt: skip
# Of these functions, what is no sentence of the page: keys of words, what a plot is called for a screen reader, bare figures.
NO_SENTENCES = {"differences with their intervals", "`\0`"}


def skeleton(english: str) -> str:
    """A twin's English with nothing but a mark for each place."""
    return "".join(literal + ("" if name is None else "\0") for literal, name, _, _ in Formatter().parse(english))


def strings(node: ast.AST) -> Iterator[str]:
    """Each string below a node, and each f-string with a mark for each place; of `counted` both the one and the many."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        inner: list[ast.AST] = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
        return
    else:
        inner = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "counted" and isinstance(node.args[1], ast.Constant):
            yield from (f"\0 {node.args[1].value}", f"\0 {node.args[1].value}s")
            inner.remove(node.args[1])
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node) is not None:
            inner.remove(node.body[0])
    for child in inner:
        yield from strings(child)


def functions_in(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """By its name, and a method by that of its class besides."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    rows = [(f"{owner.name}.{node.name}", node) for owner in classes for node in owner.body if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} | dict(rows)


def page_strings(page: Path) -> set[str]:
    tree = jinja2.Environment(autoescape=True).parse(page.read_text(encoding="utf-8"))
    return {node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)}


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(text)} - {None}


def test_korean_has_the_places_of_its_english() -> None:
    assert {english: said for english, said in korean.TWINS.items() if places(english) != places(said)} == {}


def test_every_twin_is_of_a_sentence_that_the_source_still_has() -> None:
    known = {text for page in PAGES for text in page_strings(page)}
    for path in SOURCE.rglob("*.py"):
        if path.name != "korean.py":
            known |= set(strings(ast.parse(path.read_text(encoding="utf-8"))))
    gone = [english for english in korean.TWINS if not {english, skeleton(english)} & known]
    assert gone == [], "these were changed or taken out: change or take out their twins in judge/korean.toml"


def test_every_text_of_the_pages_has_a_twin() -> None:
    """What is said with `say`, `labelled` or `label` is looked up; nothing else may be a word."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        said = re.findall(r"""(?:say|labelled)\("([^"]+)\"""", text) + re.findall(r'"(\w+)" \| label', text)
        assert [english for english in said if english not in korean.TWINS] == [], page.name
        bare = re.sub(r"(?s)<style>.*</style>|<title>.*?</title>|<script>.*</script>|{[{%].*?[%}]}|<[^>]*>", " ", text)
        assert set(re.findall(r"[A-Za-z]{2,}", bare)) <= {"English"}, page.name


def test_every_note_and_every_sentence_of_a_verdict_has_a_twin() -> None:
    known = {skeleton(english) for english in korean.TWINS}
    for name, functions in MAKERS.items():
        tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
        found = functions_in(tree)
        assert set(functions) <= {*found}, name
        made = {text for each in functions for text in strings(found[each]) if re.search(r"[A-Za-z]{2,}.* .*[A-Za-z]{2,}", text)}
        missing = made - known - NO_SENTENCES
        assert missing == set(), f"{name}: write a Korean twin of each into judge/korean.toml"


def test_what_scores_are_and_what_built_in_suites_say_of_theirs_has_a_twin() -> None:
    notes = [note for suite in builtin.BUILT_IN.values() for note in suite.notes]
    titles = [scoring.title for scoring in METRICS.values()]
    assert [text for text in (*titles, *notes) if korean.twin(text) is None] == []


@pytest.mark.parametrize(
    ("english", "said"),
    [
        (
            "`a is ahead of b` (75.0 % [59.8, 85.8]) is ahead of `right` (25.0 % [14.2, 40.2]) on `score`, 48 of 1,200 items: by "
            "50.0 points [31.5, 64.7], p < 0.0001.",
            "`score`에서 1,200문항 중 48문항을 물은 결과 `a is ahead of b` (75.0 % [59.8, 85.8]) 쪽이 `right` "
            "(25.0 % [14.2, 40.2]) 쪽보다 50.0 %p [31.5, 64.7] 앞섭니다(p < 0.0001).",
        ),
        (
            "`gpt35` (8.66 [8.25, 8.81]) is ahead of `vicuna` (7.97 [7.45, 8.30]) on `vicuna80` by its stored reviews, 80 items: "
            "by 0.69 points [0.11, 1.27], p = 0.0207.",
            "`vicuna80`(저장된 평가 기준)에서 80문항을 물은 결과 `gpt35` (8.66 [8.25, 8.81]) 쪽이 `vicuna` (7.97 [7.45, 8.30]) 쪽보다 "
            "0.69점 [0.11, 1.27] 앞섭니다(p = 0.0207).",
        ),
        (
            "`a` leads 2 other models on `quiz`, 1 item; too close to call between it and `b`; `c` and `d` have higher scores, and "
            "won fewer items, which the order goes by.",
            "`quiz`에서 1문항을 물은 결과 `a` 쪽이 다른 모델 2개보다 앞섭니다. 이 모델과 `b` 사이에서는 우열을 가릴 수 "
            "없습니다. `c`, `d` 쪽은 점수가 더 높지만 이긴 문항은 더 적으며, 순서는 이긴 문항으로 정합니다.",
        ),
        (
            "`a` is ahead on 1 of 3 suites, `b` on 0; practically equal on 1; too close to call on 1; no winner named on 2.",
            "평가 데이터 3개 가운데 `a` 쪽은 1개, `b` 쪽은 0개에서 앞섭니다. 1개에서는 사실상 같습니다. 1개에서는 우열을 가릴 수 "
            "없습니다. 2개에서는 승자를 정하지 않습니다.",
        ),
        (
            "asked in a random order (seed 0), 16 at a time, with a look after each; the intervals hold whenever one stops: the "
            "rest was not needed (`--all`, in Python: `stop_early=False`, asks everything)",
            "무작위 순서로(시드 0) 16개씩 묻고 그때마다 확인했습니다. 신뢰 구간은 언제 멈추더라도 성립합니다. 나머지는 물을 필요가 "
            "없었습니다(모두 묻는 옵션은 `--all`, Python에서는 `stop_early=False`)",
        ),
        (
            "asked in a random order (seed 0), 16 at a time and later 2 % of those before, with a look after each; the intervals hold "
            "whenever one stops",
            "무작위 순서로(시드 0) 16개씩, 나중에는 그때까지 물은 문항의 2 %씩 묻고 그때마다 확인했습니다. 신뢰 구간은 언제 "
            "멈추더라도 성립합니다",
        ),
        (
            "agreement with GPT-4's stored reviews (vicuna80), 40 pairs: where both name a winner, the same one in 27 of 36 = 75 % "
            "[59, 86] (chance: 50 %; always the longer answer: 81 %); ties included, 27 of 40 = 68 % [52, 80] (always the "
            "commonest label: 72 %), kappa 0.32 [0.06, 0.55]; both orders gave the same verdict in 10 of 40 = 25 % [14, 40]; the "
            "answer shown first won 12 of 80 = 15 % [9, 24] of the decided showings",
            "일치도(GPT-4의 저장된 평가(vicuna80), 40쌍): 둘 다 승자를 정한 쌍에서는 같은 쪽이 27/36 = 75 % [59, 86](우연: 50 %, "
            "항상 더 긴 답변: 81 %). 무승부까지 넣으면 27/40 = 68 % [52, 80](항상 가장 흔한 레이블: 72 %), 카파 0.32 [0.06, 0.55]. "
            "두 순서의 판정이 같았던 것은 10/40 = 25 % [14, 40]입니다. 먼저 보인 답변이 이긴 것은, 승자가 정해진 판정 가운데 12/80 "
            "= 15 % [9, 24]입니다",
        ),
        (
            "judged by `m`, by what it wrote; at a cost of $0.31, 5,120 bytes sent out. A judge is a model: it has tastes of its "
            "own",
            "`m` 모델이 직접 쓴 글로 판정했습니다. 비용은 $0.31입니다. 외부로 5,120바이트를 보냈습니다. 심판은 모델이며 나름의 "
            "취향이 있습니다",
        ),
        (
            "PARTIAL: 3 of 40 questions were answered by `m`: 37 questions got no answer: `h` said; no more",
            "일부 결과: `m` 쪽은 질문 40개 중 3개에 답했습니다: 질문 37개에 답을 받지 못했습니다: `h` said; no more",
        ),
        (
            "if the true difference is the 1.6 points seen here, and one side alone is right on 15.9 % of the questions, "
            "some 5,200 items would tell it in 4 of 5 duels",
            "실제 차이가 여기서 나타난 1.6 %p이고 한쪽만 맞힌 질문이 15.9 %라면, 약 5,200문항으로 대결 다섯 번 중 네 번은 그 차이를 "
            "가려낼 수 있습니다",
        ),
        ("-8.3 points [-48.4, +34.6], p = 1.00", "-8.3 %p [-48.4, +34.6], p = 1.00"),
        (
            "$1.25 in, $10.00 out per million tokens ($2.50 and $15.00 where a prompt has more than 200,000), "
            "list price as of 2026-11",
            "토큰 100만 개당 입력 $1.25, 출력 $10.00(프롬프트가 200,000개를 넘으면 $2.50, $15.00), 2026-11 기준 정가",
        ),
        (
            "$1.00 in, $4.00 out per million tokens, your price as of 2026-11 (계약서 (3쪽), as given)",
            "토큰 100만 개당 입력 $1.00, 출력 $4.00, 2026-11 기준 직접 적은 가격(계약서 (3쪽), as given)",
        ),
        ("$1.00 in, $4.00 out per million tokens, as given", "토큰 100만 개당 입력 $1.00, 출력 $4.00, 지정한 가격"),
        (
            "not called practically equal: groups unlike these 199, which they may happen to lack, leave more of the difference "
            "open: +0.5 points [-1.5, +2.8]",
            "사실상 같다고 하지 않습니다. 이 199개 묶음에 우연히 없는 다른 묶음까지 생각하면 차이의 구간이 더 넓어집니다: "
            "+0.5 %p [-1.5, +2.8]",
        ),
        ("Chiang et al. 2023; lmsys.org", None),
        ("stored:vicuna80/gpt35", None),
        ("113 ms / 180 ms", None),
        (
            "No model leads on `s`, 40 items; too close to call between `a` and `b; c`, `d` and `e`; `f` has a higher score than `a`, "
            "and won fewer items, which the order goes by.",
            "`s`에서 40문항을 물은 결과 앞서는 모델이 없습니다. `a`, `b; c`, `d`, `e` 사이에서는 우열을 가릴 수 "
            "없습니다. `f` 쪽은 `a`보다 "
            "점수가 더 높지만 이긴 문항은 더 적으며, 순서는 이긴 문항으로 정합니다.",
        ),
        (
            "Practically equal on `s` after 9 items: `a` (75.0 % [59.8, 85.8]) against `b` (75.0 % [59.8, 85.8]), apart by +0.0 "
            "points [-1.0, +1.0], less than the 5e-05 that count.",
            "`s`에서 9문항을 물은 결과 사실상 같습니다: `a` (75.0 % [59.8, 85.8]) 대 `b` (75.0 % [59.8, 85.8]). 차이는 +0.0 %p [-1.0, "
            "+1.0]이며, 의미 있다고 볼 5e-05 %p보다 작습니다.",
        ),
        (
            "answered by 2 workers on a (10.0.0.5), b (10.0.0.6): 1,204 questions to `m`",
            "a (10.0.0.5), b (10.0.0.6)의 워커 2개에서 답했습니다: `m` 모델에 한 질문 1,204개",
        ),
        (
            "asked for besides the table's labels: no, right and 3 more; `m` learned to choose from these, too",
            "표의 레이블 말고도 물은 것: no, right 외 3개. `m` 모델은 이 레이블도 고르도록 학습했습니다",
        ),
        (
            "answers and reviews: Lee; Kim 2023; licence of the data: unknown",
            "답변과 평가: Lee; Kim 2023. 데이터의 라이선스: unknown",
        ),
        (
            "the judge is a model (gpt-4, temperature 0.2): asked again it may score otherwise, and the intervals do not cover that",
            "심판은 모델입니다(gpt-4, 온도 0.2). 다시 물으면 점수가 달라질 수 있고, 신뢰 구간은 이를 담지 않습니다",
        ),
        (
            "PARTIAL: 3 of 40 questions were answered by `m`: 1 question got no answer: `h` answered 400: choose between `p` and `q`",
            "일부 결과: `m` 쪽은 질문 40개 중 3개에 답했습니다: 질문 1개에 답을 받지 못했습니다: `h` answered 400: choose between `p` "
            "and `q`",
        ),
        (
            "PARTIAL: the judge `j` judged 3 of 40 questions: gone; not known",
            "일부 결과: 심판 `j` 모델은 질문 40개 중 3개를 판정했습니다: gone; not known",
        ),
        ("`a` leads 1 other model on `s`, 40 items; it won.", None),
        ("`a`, 40 items", None),
        ("`a`, `b` and `c`", None),
    ],
)  # fmt: skip
def test_sentences_are_put_into_korean_with_their_values(english: str, said: str | None) -> None:
    assert korean.twin(english) == said


def test_what_a_place_may_hold_has_a_twin() -> None:
    """Where a format names several texts."""
    formats = {how for english in korean.TWINS for _, name, how, _ in Formatter().parse(english) if name and how}
    texts = {text.replace("#", "7.5") for how in formats - {*korean.COPIED, *korean.LOOKED_UP} for text in how.split("|")}
    assert len(texts) > 20
    assert [text for text in texts if text and korean.twin(text) is None] == []


def pinned_sentences() -> set[str]:
    """Each note and each sentence that a test of judge/ compares one with, from its first word to its last."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                about = [getattr(side, "attr", "") for side in sides]
                if "notes" in about or ("sentence" in about and isinstance(node.ops[0], ast.Eq)):
                    found |= {text for side in sides for text in whole_texts(side)}
    return found


def whole_texts(node: ast.AST) -> Iterator[str]:
    """The texts below a node that are no part of another; a place of an f-string holds a number."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "7.0" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from whole_texts(child)


def test_sentences_that_tests_pin_are_put_into_korean_whole() -> None:
    """With the same names, and no English beside them."""
    sentences = {text for text in pinned_sentences() if " " in text}
    assert len(sentences) > 15
    for english in sentences:
        said = str(korean.twin(english))
        assert sorted(re.findall("`[^`]*`", said)) == sorted(re.findall("`[^`]*`", english))
        assert re.findall("[A-Za-z]{2,}", re.sub("`[^`]*`|Python", "", said)) == [], said


def test_no_text_takes_long() -> None:
    """Each of these took minutes, or would have, where a pattern could match in more than one way."""
    hostile = [
        "`a` · " * 50,
        "`a` (b · " * 9 + "c)" * 9,
        "`a` and " * 120,
        "`" * 999,
        "." * 1000,
        "1," * 500,
        "1 of 2 = 3 % [4, 5]" * 50,
        "; ".join(["`a` (b)."] * 100),
        ": the rest has no kept answers" * 30,
        "x, and the budget counts the most each can have cost: at most $1 more" * 14,
        "PARTIAL: 3 of 40 questions were answered by `m`: " * 20,
        "agreement with the labels of x, 1 pairs: y; ties included, " * 16,
        "." * 100_000,
    ]
    code = f"from nomoat.judge import korean\nfor text in {hostile!r}: korean.twin(text)"
    subprocess.run([sys.executable, "-"], input=code.encode(), check=True, timeout=120)  # longer than a line may be on Windows
