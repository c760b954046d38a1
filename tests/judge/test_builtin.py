"""The suites that come with nomoat: what their data becomes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nomoat.catalog.datasets import dataset
from nomoat.judge.builtin import BUILT_IN
from nomoat.judge.suites import load_suite, write_suite

# Vader's come from the package index; test_recorded.py reads the recorded ones.
IN_MIRROR = [
    name for name, suite in BUILT_IN.items() if not suite.dataset.startswith("vader") and suite.metric not in ("recorded", "published")
]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_suite_names_its_data_terms_and_the_source_of_its_prompt(name: str) -> None:
    suite = BUILT_IN[name]
    assert suite.name == name and suite.title and suite.prompt_source and suite.language
    assert dataset(suite.dataset).licence != "unknown" or name == "lora-land"  # a table of facts, published without a licence


@pytest.mark.data
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize("name", IN_MIRROR)
def test_suite_has_as_many_examples_as_it_says_and_can_be_copied(name: str, tmp_path: Path) -> None:
    suite = load_suite(name)
    assert len(suite.examples) == BUILT_IN[name].num_examples == len({example.id for example in suite.examples})
    if suite.metric == "review":
        return
    copied = load_suite(write_suite(suite, tmp_path))
    assert dataclasses.replace(copied, folder=suite.folder) == suite


@pytest.mark.data
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(
    ("name", "example_id", "text", "target"),
    [
        ("kobest-sentineg", "3394", "문장: 택배사 정말 마음에 듬 긍부정:", "긍정"),
        ("kobest-copa", "1", "새로 산 바지의 허리가 컸다.  그래서", "벨트를 바지에 끼워 사이즈를 조절했다."),
        ("tatoeba-ko-en", "1", "Translate the following text into English. Answer with the translation only.\n\n가.", "Go."),
    ],
)
def test_prompt_is_the_usual_one(name: str, example_id: str, text: str, target: str) -> None:
    (found,) = [example for example in load_suite(name).examples if example.id == example_id]
    assert (found.messages[-1].content, found.target) == (text, target)


@pytest.mark.data
@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(("name", "num_yes"), [("kobest-boolq", 705), ("kobest-wic", 615)])
def test_yes_is_yes_in_whichever_case_the_table_writes_it(name: str, num_yes: int) -> None:
    """The tables hold True, TRUE, False and FALSE; KoBEST's answers are balanced."""
    assert sum(example.target == "예" for example in load_suite(name).examples) == num_yes


@pytest.mark.data
@pytest.mark.usefixtures("mirror")
def test_second_turns_of_mt_bench_follow_the_first_ones() -> None:
    first, second = load_suite("mt-bench").examples[:2]
    assert (second.follows, second.group, first.group, first.follows) == (first.id, "81", "81", "")
