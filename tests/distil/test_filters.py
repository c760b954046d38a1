"""Which tasks are kept."""

from __future__ import annotations

import random
import time

import pytest

from nomoat.distil import filters
from nomoat.distil.filters import MAX_SIMILARITY, Novelty, pieces, reason_to_drop
from nomoat.distil.prompts import Task
from nomoat.rouge import rouge_l


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Explain why the sky is blue.", None),
        ("이 글을 한 문장으로 요약해 주세요.", None),
        ("다음문장을번역하시오", None),
        ("Translate it now", "too short"),
        ("요약해 줘", "too short"),
        (" ".join(["word"] * 151), "too long"),
        ("", "no instruction"),
        ("What is to be done.", "copied from the request"),
        ("what is to be done?", "copied from the request"),
        ("The text it is done with", "copied from the request"),
        ("- Name three rivers of Asia", "begins with no letter or digit"),
        ("** Name three rivers of Asia", "begins with no letter or digit"),
        ("¿Cuál es la capital de Francia?", None),
        ("¡Escribe una carta a tu abuela!", None),
        ("“Explain” what this means now", None),
        ("«Nomme» trois fleuves d'Asie", None),
        ("«", "too short"),
        ("สรุปบทความนี้ในหนึ่งประโยค", None),
        ("ຈົ່ງອະທິບາຍຄວາມແຕກຕ່າງລະຫວ່າງພະລັງງານ", None),
        ("သဘာဝပတ်ဝန်းကျင်အကြောင်းရှင်းပြပါ", None),
        ("សូមសរសេរកំណាព្យអំពីសមុទ្រ", None),
        ("แปลประโยคนี้", "too short"),
        ("แปล" * 151, "too long"),
        ("파일럿이 되는 방법을 설명해 주세요", None),
        ("그림자에 대한 시를 지어 주세요", None),
        ("그림 형제의 동화를 하나 요약하세요", None),
        ("프로파일링이 무엇인지 설명해 주세요", None),
        ("이 파일을 열어서 내용을 요약하세요", "about images, sound or files"),
        ("그림을 보고 무엇인지 설명하세요", "about images, sound or files"),
        ("Describe what this picture shows you", "about images, sound or files"),
        ("이 사진에 무엇이 있는지 설명하세요", "about images, sound or files"),
        ("Profile the habits of a customer", None),
        ("Write a program that sorts a list", "asks for a program"),
        ("정렬하는 프로그램을 작성하는 사람에게 조언하세요", None),
        ("프로그램을 작성하여 목록을 정렬하세요", "asks for a program"),
    ],
)
def test_rules(instruction: str, reason: str | None) -> None:
    assert reason_to_drop(Task(instruction=instruction, input="", output="yes")) == reason


def test_a_task_with_the_words_of_the_request_is_dropped() -> None:
    for copied in ({"input": "<the text it is done with>"}, {"output": "The result."}):
        task = Task(**{"instruction": "Summarise the text given here.", "input": "", "output": "yes", **copied})
        assert reason_to_drop(task) == "copied from the request"


def test_a_task_without_an_answer_is_dropped() -> None:
    assert reason_to_drop(Task(instruction="Explain why the sky is blue.", input="", output="")) == "no answer"


def test_pieces_are_words_and_korean_syllables() -> None:
    assert pieces("GPT-4와 비교: Don't_stop") == ["gpt", "4", "와", "비", "교", "don", "t", "stop"]
    assert pieces("น้ำตก GPTไทย") == ["น้", "ำ", "ต", "ก", "gpt", "ไ", "ท", "ย"]
    assert pieces("हिन्दी में लिखो ❤️") == ["हिन्दी", "में", "लिखो"]


@pytest.mark.parametrize(
    ("known", "other", "is_new"),
    [
        ("Explain why the sky is blue.", "Explain why the sky is blue!", False),
        ("Explain why the sky is blue.", "Explain to me why the sky is so blue.", False),
        ("Explain why the sky is blue.", "Explain why the sea is salty.", True),
        ("Explain why the sky is blue.", "하늘이 파란 이유를 설명하세요.", True),
        ("다음 글을 한 문장으로 요약하세요.", "다음 글을 한 문장으로 요약해 주세요.", False),
        ("다음 글을 한 문장으로 요약하세요.", "다음 글을 영어로 번역하세요.", True),
        ("하늘이 파란 이유를 설명하세요.", "바다가 짠 이유를 설명하세요.", True),
        ("대한민국의 수도는 어디인가요?", "대한민국의 수도는 어디입니까?", False),
        ("สรุปบทความนี้ในหนึ่งประโยค", "สรุปบทความนี้ในหนึ่งประโยคครับ", False),
        ("สรุปบทความนี้ในหนึ่งประโยค", "อธิบายว่าทำไมท้องฟ้าเป็นสีฟ้า", True),
    ],
)
def test_what_says_nearly_the_same_is_not_new_in_english_and_korean(known: str, other: str, is_new: bool) -> None:
    assert Novelty([known]).is_new(other) is is_new


def test_the_quick_way_finds_what_comparing_all_finds() -> None:
    draw = random.Random(0)
    words = ["name", "list", "explain", "the", "a", "of", "three", "why", "how", "sky", "sea", "blue", "river", "한", "글", "요", "약"]
    texts = [" ".join(draw.choices(words, k=draw.randint(2, 9))) for _ in range(300)]
    novelty = Novelty()
    known: list[str] = []
    for text in texts:
        slow = all(rouge_l(pieces(text), pieces(other)) <= MAX_SIMILARITY for other in known)
        assert novelty.is_new(text) is slow
        if slow:
            novelty.add(text)
            known.append(text)
    assert 50 < len(known) < 300


def test_thousands_of_instructions_take_seconds() -> None:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(3000)] + ["the", "a", "of", "in"] * 100
    novelty = Novelty(" ".join(draw.choices(words, k=14)) for _ in range(5000))
    began = time.process_time()
    assert all(novelty.is_new(" ".join(draw.choices(words, k=14))) for _ in range(200))
    assert time.process_time() - began < 10  # comparing all would be a million common subsequences: minutes


def test_each_of_tens_of_thousands_of_instructions_is_compared_in_a_moment() -> None:
    """Of few words, so that each has some in common with most of the others: one by one that took 20 ms for each."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(400)]
    novelty = Novelty(" ".join(draw.choices(words, k=15)) for _ in range(30_000))
    began = time.process_time()
    assert all(novelty.is_new(" ".join(draw.choices(words, k=15))) for _ in range(300))
    assert time.process_time() - began < 2


def test_what_has_too_few_pieces_in_common_is_not_compared_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """All share four of their nine words, one six of them, and one all: seven would have to be the same."""
    novelty = Novelty(f"explain to me why a{n} b{n} c{n} d{n} e{n}" for n in range(1000))
    compared: list[list[str]] = []
    monkeypatch.setattr(filters, "rouge_l", lambda _, known: compared.append(known) or 1.0)
    assert novelty.is_new("explain to me why a5 b5 c7 x y")
    assert not novelty.is_new("why me to explain a8 b8 c8 d8 e8")
    assert compared == [pieces("explain to me why a8 b8 c8 d8 e8")]


def test_a_piece_that_comes_again_counts_as_often_as_both_texts_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    novelty = Novelty(["go go go go stop now"])
    monkeypatch.setattr(filters, "rouge_l", lambda *_: pytest.fail("two of six are the same"))
    assert novelty.is_new("go go left right up down")
