"""What counts as the same answer, and which choice is taken."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from letters import decomposed

from nomoat.errors import DataError
from nomoat.judge.examples import asked
from nomoat.judge.scorers import (
    bleu,
    bleu_over_all,
    broken_number,
    broken_schema,
    char_f1,
    chosen_letter,
    chrf,
    chrf_over_all,
    exact,
    f1,
    is_number,
    json_score,
    matches,
    number_in,
    numeric,
    rouge,
)
from nomoat.matching import likeliest, matching_choice, normalise_answer
from nomoat.records import ContinuationScore, Example
from nomoat.textfiles import composed


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("  Positive.\n", "positive"),
        ("“Positive”", "positive"),
        ("**spam**", "SPAM"),
        ("ｐｏｓｉｔｉｖｅ", "positive"),  # full-width letters
        ("긍정。", "긍정"),
        ("\u1100\u1173\u11bc\u110c\u1165\u11bc", "긍정"),  # syllables written as single letters
        ("new \t york", "New York"),
        ("STRASSE", "Straße"),
        ("-5", "-5."),
        ("−5", "-5"),  # U+2212
        ("**–.5**", "-.5"),
        ("x = −5", "X = -5"),
        ("3–5", "3-5"),
        ("50 %.", "50 %"),
        ("(50%)", "50%"),
        ("“C#”.", "c#"),
        ("## Spam ##", "spam"),
        ("...5", "5"),
        ("- yes", "yes"),
        ("?", "?"),
    ],
)
def test_answers_that_differ_only_in_writing_are_the_same(answer: str, target: str) -> None:
    assert exact(answer, target) == 1.0


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("", "positive"),
        ("...", "positive"),
        ("not positive", "positive"),
        ("5", "-5"),
        ("50", "$50"),
        ("!", "?"),
        ("us", "u.s."),
        ("5", ".5"),
        ("5", "-.5"),
        ("50", "50%"),
        ("C", "C#"),
        ("F", "F#"),
        ("5", "−5"),
        ("1", "#1"),
    ],
)
def test_answers_that_say_something_else_are_not(answer: str, target: str) -> None:
    assert exact(answer, target) == 0.0


@pytest.mark.parametrize("text", ["ẞ", "ǰ.", "ﬁn", "  a  b ", "-5", "--", "Ⅷ", "−5", "--−5", "...5", "(–.5)"])
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


def scores(*pairs: tuple[float, int]) -> list[ContinuationScore]:
    return [ContinuationScore(log_probability=value, num_tokens=tokens) for value, tokens in pairs]


def test_likeliest_sums_over_tokens_unless_told_to_average() -> None:
    short_and_long = scores((-2.0, 1), (-3.0, 3))
    assert likeliest(short_and_long) == 0
    assert likeliest(short_and_long, per_token=True) == 1


def test_first_of_equally_likely_choices_is_taken() -> None:
    assert likeliest(scores((-4.0, 1), (-2.0, 1), (-2.0, 1))) == 1
    assert likeliest(scores((float("-inf"), 0), (float("-inf"), 2))) == 0
    with pytest.raises(ValueError, match="nothing to choose from"):
        likeliest([])


def test_written_answer_matches_a_choice_whole_or_not_at_all() -> None:
    choices = ("negative", "positive")
    assert matching_choice(" Positive!", choices) == 1
    assert matching_choice("It is positive", choices) is None
    assert matching_choice("", choices) is None
    assert matching_choice("<think>negative? no</think>\n\npositive", choices) == 1
    assert matching_choice("<think>negative or\npositive", choices) is None
    assert matching_choice("a", ("A", "a.")) is None


@pytest.mark.parametrize(
    "answer",
    [
        "긍정입니다", "긍정입니다.", "정답: 긍정", "정답은 긍정", "정답은 '긍정'입니다.", "분류: 긍정", "레이블: 긍정", "Label: 긍정",
        "라벨：긍정", "**정답:** 긍정이에요", "답은 **긍정**이다.", "Label:\n긍정", decomposed("정답은 긍정입니다."),
        "긍정적", "긍정적입니다", "긍정적이에요!", "긍정적인 리뷰입니다.", "이 리뷰는 긍정적입니다.",
        "긍정적으로 분류됩니다", "이 글의 감정은 **긍정적**입니다.",
        "해당 문의는 '긍정'입니다.", "주어진 문장의 감정 분석 결과는 긍정입니다.",
        "결과: 긍정", "유형은 긍정이네요", "긍정으로 판단됩니다.",
        "긍정에 해당합니다.", "이 문장은 긍정적인 문장입니다.", decomposed("이 후기는 긍정적입니다."),
    ],
)  # fmt: skip
def test_a_korean_sentence_that_names_a_choice_and_says_nothing_else_is_that_choice(answer: str) -> None:
    assert matching_choice(answer, ("부정", "긍정")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is positive.",
        "Answer: Positive",
        "**Label:** positive",
        'The correct label is: "positive"',
        "`positive`",
        "```\npositive\n```",
        "`Positive`.",
        "<positive>",
        "1. positive",
        "(2) `positive`",
        "Label: `positive`",
        "답: <positive>",
    ],
)
def test_a_choice_in_a_sentence_that_says_nothing_else_in_markup_or_behind_a_number_is_that_choice(answer: str) -> None:
    assert matching_choice(answer, ("negative", "positive")) == 1


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("not spam\n\nThis message is friendly; spam offers a prize.", "not spam"), ("**spam**\r\n\r\nIt offers a prize.", "spam"),
        ("spam\n**Reason:** it offers a prize", "spam"), ("not\nspam\n\nBecause", "not spam"), ("Label: spam\n\nSpam", "spam"),
        ("Category: spam", "spam"), ("**Classification:** spam", "spam"), ("Final answer: spam", "spam"), ("Sentiment: 긍정", "긍정"),
        ("The label for this text is: spam", "spam"), ("The text is not spam.", "not spam"), ("\\boxed{spam}", "spam"),
        ('This message is classified as "not spam".', "not spam"), ("The answer is $\\boxed{\\text{not spam}}$.", "not spam"),
        ("긍정으로 분류됩니다.", "긍정"), ("감정: 긍정", "긍정"), ("분류 결과: 긍정", "긍정"), ("이 문장은 '긍정'입니다.", "긍정"),
        ("긍정임", "긍정"), ("이 리뷰의 감정은 긍정입니다.", "긍정"), ("긍정\n\n이 리뷰는 부정적인 말이 없습니다.", "긍정"),
        ("긍정\n\n처음은 부정, 끝은 긍정입니다.", "긍정"), ("spam\n\nAnswer: spam, no ham", "spam"),
        ("spam\n\nThe beginning is not spam, but: a prize.", "spam"),
    ],
)  # fmt: skip
def test_a_choice_before_its_reasons_or_behind_what_it_is_of_is_that_choice(answer: str, choice: str) -> None:
    choices = ("not spam", "spam", "부정", "긍정")
    assert matching_choice(answer, choices) == choices.index(choice)


@pytest.mark.parametrize(
    "answer",
    [
        "Spam?\n\nNo.", "**Spam:**\n\nnone found", "spam\nnot detected", "spam\n\nFinal answer: ham", "ham\n\nspam", "Not ham\n\nx",
        "no spam\n\nNone.", "ham-like\n\nx", "The text is ham free.", "Category: not ham\nReason: x", "ham 아님\n\nx", "I see.\n\nham",
        "Spam.\n\nCorrection: Ham", "spam\n\nSo the final answer is: ham.", "spam\n\nWait. Therefore, the answer is ham.",
        "spam\n\nFinal verdict: **ham**", "spam\n\n**Answer:** ham, because", "spam\n이유: 광고. 최종 정답은 ham입니다",
        "spam\n\n따라서 정답은 ham입니다.", "spam\n\nIt offers a prize.\nOn reflection：ham。",
        "spam\n\nIt has no link. Therefore, it is ham.", "spam\n\nReason: none. Correction: ham, sorry", "spam\n\n결론은 ham입니다.",
        "spam\n\n정정: ham", "spam\n\nOverall: ham", "spam\n\nThere is no link, so the label is ham; sorry.", "spam\n\nspam\n\nham",
        "spam\n\n최종: ham. 광고가 아님", "spam\n\nWait, the text is ham.", "spam\n\nIn conclusion, this is ham.",
        "spam\n\nham 메일입니다.",
    ],
)  # fmt: skip
def test_a_first_line_that_names_no_choice_or_is_taken_back_is_none(answer: str) -> None:
    assert matching_choice(answer, ("spam", "ham")) is None


@pytest.mark.parametrize(
    ("answer", "choices"),
    [
        ("positive\n\nReasons:\n- Acting: positive\n- Ending: negative", "positive,negative"),
        ("긍정\n\n이유: 연기가 좋음\n- 주제: 부정\n- 결과는 부정", "긍정,부정"),
        ("긍정\n\n**긍정적인 내용:**\n배우\n**부정적인 내용:**\n결말", "긍정,부정"),
        ("긍정\n\n긍정적:\n- 배우\n부정적:\n- 결말", "긍정,부정"),
        ("positive\n\n* Sentiment of the food: positive\n* Sentiment of the staff: negative\nOverall: positive", "positive,negative"),
        ("positive\n\nSentiment: negative at first.\nLabel: negative\nCorrection: positive\nThanks.", "positive,negative"),
        ("A\n\nReason: B, C and D are wrong.", "A,B,C,D"), ("politics\n\nNote: sports, in passing, is incidental.", "politics,sports"),
        ("politics\n\nSub-category: sports", "politics,sports"), ("politics\n\nOther label: sports", "politics,sports"),
        ("부정\n\n- 연기: 긍정\n- 결말: 부정", "부정,긍정"), ("부정\n\n이유: 초반 분위기는 긍정", "부정,긍정"),
        ("yes\n\nContains link: yes\nPersonal: no", "yes,no"), ("no\n\nReason: Who wrote it is unknown", "no,yes,unknown"),
        ("yes\n\nReason: Is it about money? Yes: the message says so. Is it personal: no.", "yes,no"),
        ("entailment\n\nReason: The tone of the premise is neutral.", "entailment,neutral"),
        ("4\n\nReason: rating is 4 out of 5. Length: 3, fine", "4,3,5"), ("4\n\nThe label is 3.5, rounded up", "4,3,5"),
        ("2\nConfidence: 3", "2,1,3"), ("배송\n\n이유: 주된 불만은 배송입니다. 부차적 불만: 가격", "배송,가격"),
        ("joy\n\nReason: The opposite is anger.", "joy,anger"),
    ],
)  # fmt: skip
def test_reasons_that_name_another_choice_of_something_else_take_nothing_back(answer: str, choices: str) -> None:
    """The first of the choices is the answer."""
    assert matching_choice(answer, choices.split(",")) == 0


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("-\n" * 8000, None), (" " * 20_000, None), ("spam" + ":" * 20_000 + "x\n\ny", None),
        ("spam" + "? " * 10_000 + "x\n\ny", None),
        ("spam\n" + "-\n" * 8000 + "Reason: x", 0), ("spam\n" + " \n" * 8000 + "x", 0), ("spam\n\n" + "a: " * 8000, 0),
        ("spam\n\n" + "so the answer is " * 4000, 0), ("spam\n\n" + "answer" + "! " * 10_000, 0), ("spam\n\n" + "so, " * 8000, 0),
    ],
)  # fmt: skip
def test_a_long_answer_of_signs_is_read_in_no_time(answer: str, index: int | None) -> None:
    """Under a tenth of a second each; where the time grew with the length's square, it took from four seconds to half a minute."""
    began = time.process_time()
    assert matching_choice(answer, ("spam", "ham")) == index
    assert time.process_time() - began < 2


@pytest.mark.parametrize("answer", ["<5", "1.5", "1. negative 2. positive", "<negative> <positive>", "2 positive", "<>"])
def test_signs_that_say_something_are_not_taken_off(answer: str) -> None:
    assert matching_choice(answer, ("negative", "positive", "5")) is None


@pytest.mark.parametrize(
    "answer",
    [
        "긍정이 아닙니다", "정답은 긍정이 아니라 부정입니다", "긍정적이지 않습니다", "긍정 또는 부정입니다", "정답: ", "입니다",
        "The answer is not positive", "I think the answer is positive", "The text is not positive.",
        "긍정임에도 부정", "부정확", "부정확합니다", "부정확한 리뷰입니다", "긍정적인 면도 있는 리뷰입니다",
        "긍정적이라고 할 수 없습니다", "긍정으로 판단되지 않습니다",
    ],
)  # fmt: skip
def test_a_sentence_that_says_more_is_no_choice(answer: str) -> None:
    assert matching_choice(answer, ("부정", "긍정", "negative", "positive")) is None


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("아니요", "예,아니오", 1), ("정답은 아니요입니다.", "예,아니오", 1), ("네", "예,아니오", 0), ("네.", "아니요,예", 1),
        ("예", "네,아니요", 0), ("네", "예,네", 1), ("예시", "예,아니오", None), ("아니", "예,아니오", None),
        ("거짓말", "참,거짓", None), ("참고", "참,거짓", None), ("거짓이다", "참,거짓", 1), ("여자다", "남자,여자", 1),
        ("불만 문의입니다", "문의,불만", None), ("사실 의견", "의견,사실", None),
        ("효과적인 후기", "효과,효과적", 1), ("긍정적인 리뷰입니다", "부정적,긍정적", 1), ("긍정적 리뷰", "부정,긍정", 1),
        ("비정상 메일입니다", "스팸,정상", None), ("스팸 메일입니다.", "스팸,정상", 0), ("배송 문의입니다", "배송,환불", 0),
        ("배송 문의입니다", "배송,배송 문의", 1), ("목적", "목,발", None), ("가수다", "가수,가수다", 1),
    ],
)  # fmt: skip
def test_korean_words_are_known_by_their_other_spelling_and_not_by_their_beginning(
    answer: str, choices: str, index: int | None
) -> None:
    assert matching_choice(answer, choices.split(",")) == index


def test_as_little_as_possible_is_taken_off_an_answer() -> None:
    assert matching_choice("정답은 학생이다", ("학생", "학생이다")) == 1
    assert matching_choice("부정적이에요", ("부정", "부정적")) == 1
    assert matching_choice("분류: 답", ("답", "분류: 답")) == 1
    assert matching_choice("Answer: -5", ("5", "-5")) == 1
    assert matching_choice("<a>", ("a", "<a>")) == 1
    assert matching_choice("1. a", ("a", "1. a")) == 1


@pytest.mark.parametrize(
    ("answer", "index"),
    [("B", 1), ("(b)", 1), ("B. Paris", 1), ("Answer: B", 1), ("The correct answer is **B**.", 1), ("정답은 B입니다", 1), ("Ｂ", 1)],
)
def test_letter_at_the_beginning_is_the_choice(answer: str, index: int) -> None:
    assert chosen_letter(answer, 3) == index


@pytest.mark.parametrize(
    "answer",
    [
        "The right choice is B.", "The correct choice is (B).", "The correct option is B", "The letter is B.", "Letter: B",
        "The correct letter is B", "The best answer is B", "My answer is B.", "My choice: B", "I choose B.", "I pick **B**",
        r"\boxed{B}", r"The answer is $\boxed{\text{B}}$.", "The letter B",
    ],
)  # fmt: skip
def test_letter_behind_other_words_for_the_answer_is_the_choice(answer: str) -> None:
    assert chosen_letter(answer, 3) == 1


@pytest.mark.parametrize(
    "answer",
    ["", "D", "The choice is clear", "I choose carefully", "Letter by letter", "Because of it", "I think B", "42", "İ.", "ı."],
)
def test_anything_else_is_no_letter(answer: str) -> None:
    assert chosen_letter(answer, 3) is None


@pytest.mark.parametrize(
    "answer",
    ["D is incorrect", "D is wrong, it is B", "Answer: D is not the capital; B is", "**D** isn't it", "D is false.",
     "(D) is incorrect", "**(D)** is wrong", r"\boxed{D} is wrong", r"\boxed{\text{D}} is false", "D is not right",
     "D는 틀렸습니다", "D가 아니라 B", "정답은 D가 아니라 B입니다", "D는 정답이 아닙니다", "D은 오답입니다", "D는 오답",
     "D가 오답이다", "D는 정답 아님", "(D)는 오답", "D번은 틀렸습니다", "D번이 아니라 C번", "정답은 D 아님", "D 아님. C",
     "D번 아닙니다", "D는 옳지 않습니다", "D는 맞지 않습니다"],
)  # fmt: skip
def test_a_letter_that_is_denied_is_no_choice(answer: str) -> None:
    assert chosen_letter(answer, 4) is None


@pytest.mark.parametrize(
    "answer",
    ["D is right", "D. is not soluble", "D\tis not soluble", "(D) is not soluble", "D) is wrong", "D. 아니요", "D 틀니", "D 아니면 B",
     "D 아님 B", "D is notable"],
)  # fmt: skip
def test_a_letter_with_its_text_is_a_choice_whatever_that_says(answer: str) -> None:
    assert chosen_letter(answer, 4) == 3


@pytest.mark.parametrize(
    "answer",
    ["D is not wrong", "D isn't wrong", "D is not incorrect", "D is not  false", "D is not only right but the best",
     "D는 오답이 아닙니다", "D는 오답 아님", "D는 틀리지 않았습니다", "D가 아니라고는 할 수 없다", "D가 아닌가요", "D가 아닙니까?",
     "D가 아닐까요", "D는 틀림없습니다"],
)  # fmt: skip
def test_a_letter_of_which_a_denial_is_denied_is_a_choice(answer: str) -> None:
    assert chosen_letter(answer, 4) == 3


def test_spaces_without_end_are_read_once() -> None:
    assert chosen_letter(f"the{' ' * 1_000_000}!", 3) is None
    assert chosen_letter(f"the correct{' ' * 1_000_000}answer B", 3) == 1
    assert chosen_letter(f"the choice{' ' * 1_000_000}boxed", 3) is None
    assert chosen_letter(f"B{' ' * 1_000_000}is{' ' * 1_000_000}so", 3) == 1


@pytest.mark.parametrize(
    "answer",
    ["a dog", "A likely answer is C", "The answer is a dog.", "Answer: a dog", "The right choice is a dog", "I choose a dog",
     "The option is a bad one", "I choose option", "The answer I think is B", "I think B", "i would say",
     "I would say B", "I'd say B", "I’m sure"],
)  # fmt: skip
def test_a_and_i_as_words_are_no_letters(answer: str) -> None:
    assert chosen_letter(answer, 26) is None


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("A", 0),
        ("a)", 0),
        ("A\na dog", 0),
        ("A is right", 0),
        ("A because it barks", 0),
        ("A would be right", 0),
        ("A best fits", 0),
        ("A has to be right", 0),
        ("A or B", 0),
        ("A\tmitochondria", 0),
        ("Option A best describes it", 0),
        ("Option A would be correct", 0),
        ("Option a fits", 0),
        ("Choice A makes sense", 0),
        ("Option I fits", 8),
        ("The answer is A and not B", 0),
        ("The answer is A dog", 0),
        ("Answer: A mitochondria", 0),
        ("A Paris", 0),
        ("A 입니다", 0),
        ("정답은 A 이다", 0),
        ("A, a dog", 0),
        ("'I'", 8),
        ("I is right", 8),
        ("I. Paris", 8),
        ("B dog", 1),
    ],
)
def test_a_and_i_that_are_chosen_are_letters(answer: str, index: int) -> None:
    assert chosen_letter(answer, 26) == index


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("so she makes 9 * 2 = $18 every day.", "... #### 18", 1.0),
        ("#### 1,234\nIs that right? 7", "#### 1234", 1.0),
        ("The answer is 18.0", "18", 1.0),
        ("-5", "5", 0.0),
        ("−5", "-5", 1.0),
        ("답은 18개입니다", "18", 1.0),
        ("I do not know", "18", 0.0),
        ("18 of 20", "18", 0.0),  # the last number counts
        ("5", "1e5", 0.0),
        ("It is 100,000.", "1e5", 1.0),
        ("1.5E-3 m", "0.0015", 1.0),
        ("3 eggs", "3", 1.0),
        ("1e99999999999999999999", "1", 0.0),
        ("The area is 25 m².", "25", 1.0),
        ("25", "25 m²", 1.0),
        ("넓이는 25㎡입니다", "25", 1.0),
        ("25 cm³", "25", 1.0),
        ("25 m^2", "25", 1.0),
        (r"The angle is $90^\circ$", "90", 1.0),
        (r"It is 90^{\circ}.", "90", 1.0),
        ("정답은 42^^", "42", 1.0),
        ("#### 20^{th}", "20", 1.0),
        ("The area is 25 cm^{2}.", "25", 1.0),
        ("9.8 m s^-2", "9.8", 1.0),
        ("$x^2 = 49$ so x = 7, and x^(2.5) is not asked", "7", 1.0),
        ("2^10 = 1024", "1024", 1.0),
        ("10^2", "2", 0.0),
        ("10^2", "10", 0.0),  # nor is a power, and its base is not the answer
        ("The answer is 2 ^ 5.", "2", 0.0),
        ("18 = 144/2^3", "18", 1.0),
        ("10^6 = 1,000,000", "1000000", 1.0),
        ("x₂ = 7", "7", 1.0),
        ("7 H₂O", "7", 1.0),
        ("10²", "10", 0.0),
        ("10²", "102", 0.0),
        ("½", "1", 0.0),
        ("３½", "3", 0.0),  # a fraction is no number, and none of its parts is
        ("3/2", "2", 0.0),
        ("12 / 5", "5", 0.0),
        ("5 km/h", "5", 1.0),
        ("10/2 = 5", "5", 1.0),
        ("#### 1/2", "1", 0.0),
        ("3 of 4\n/ 2", "2", 1.0),  # no fraction is written over two lines
        ("items: 18 /2 7", "7", 1.0),
        ("3/ 2", "2", 0.0),
        ("so 3 /2", "2", 0.0),
        ("5:30 = 11/2", "30", 0.0),
        ("18 = 36/2", "18", 1.0),
        ("So it is $18 = 72/4 = 36 / 2.", "18", 1.0),
        ("#### 18 = 36/2", "18", 1.0),
        ("x = 36/2", "36", 0.0),
        ("9 * 2 = 36/2", "2", 0.0),  # a part of the sum
        ("x2 = 1/2", "2", 0.0),
        ("a+3 = 7/2", "3", 0.0),
        ("18 = 36/2 or 5/2", "18", 0.0),
        ("5천", "5만", 0.0),
        ("5만 원입니다", "50000", 1.0),
        ("3만 5천원", "35000", 1.0),
        ("3만 5000원", "35000", 1.0),
        ("35,000", "3만5천", 1.0),
        ("총 1억 2,000만 원", "1억 2천만", 1.0),
        ("2천5백만", "25000000", 1.0),
        ("1.5억", "150000000", 1.0),
        ("3백2십", "320", 1.0),
        ("2만 3만", "30000", 1.0),  # two numbers
        ("1만 12,000", "12000", 1.0),
        ("3만 1/2", "30000", 0.0),
        ("5만큼 큽니다", "5", 1.0),
        ("8조각", "8", 1.0),
        ("제3조", "3", 1.0),
        ("24명을 4명씩 나누면 6조가 됩니다", "6", 1.0),
        ("10조합입니다", "10", 1.0),
        ("민법 750조", "750", 1.0),
        ("헌법 1조 2항", "2", 1.0),
        ("6조 원", "6000000000000", 1.0),
        ("약 6조여 원", "6조 달러", 1.0),
        ("1조 2천억", "1200000000000", 1.0),
        ("2조 3만 원", "2000000030000", 1.0),
        ("1.5조", "1조 5,000억 원", 1.0),
        ("30조 개의 세포", "30000000000000", 1.0),
        ("6조입니다", "6조 원", 1.0),  # where the target is that large
        ("3천조", "3천조 원", 1.0),
        ("6조", "6", 1.0),
        ("만 2천원", "12,000", 1.0),
        ("1,200 만 원입니다", "1,200만원", 1.0),
        ("모두 삼만 오천원입니다", "35000", 1.0),
        ("백이십삼만사천오백육십 원", "1234560", 1.0),
        ("천만원", "10,000,000원", 1.0),
        ("만원", "1만원", 1.0),
        ("3 억 5천만 원", "350000000", 1.0),
        ("5명 가운데 일원입니다", "5", 1.0),
        ("7개로 수천 원을 구원했다", "7", 1.0),
        ("사과 3 만큼", "3", 1.0),
        ("3만 원 2천 원", "2000", 1.0),
        ("이십 만원", "200000", 1.0),
        ("이천 만 원", "20000000", 1.0),
        ("삼 천원을 거슬러 준다", "3000", 1.0),
        ("이십일 만 이천 원", "212000", 1.0),
        ("일조 오천억 원", "1500000000000", 1.0),
        ("10 만 5 천 원", "105000", 1.0),
        ("이조 삼천오백억 원", "2350000000000", 1.0),
        ("5명이 물에 빠져 구조원을 불렀다", "5", 1.0),
        ("5명이 구조 원인을 찾았다", "5", 1.0),
        ("7명이 몇 만 원씩", "7", 1.0),
        ("10여 만 원", "10", 1.0),
        ("35 (단위: 만원)", "35", 1.0),
        ("12,000 (천 원)", "12000", 1.0),
    ],
)
def test_last_number_is_the_answer(answer: str, target: str, score: float) -> None:
    assert numeric(answer, target) == score


@pytest.mark.parametrize("target", ["35,000원(삼만 오천 원)", "금 오백만원정 (₩5,000,000)", "35 (만 원)"])
def test_an_amount_that_brackets_repeat_is_one_number(target: str) -> None:
    assert broken_number(target) == ""
    assert "holds 2 numbers" in broken_number("35,000원(삼만 원)")
    assert "holds 2 numbers" in broken_number("3+3")


@pytest.mark.parametrize("text", ["7 ^{}x", "7{}^2", "7 ^2{}", "7 ^{{2{}x", "7 ^{{{}x"])
def test_a_number_is_looked_for_in_time_that_grows_with_the_spaces_not_their_square(text: str) -> None:
    """Of 40,000 spaces, which take 0.02 s and took 20: no machine is a hundred times slower."""
    began = time.process_time()
    number_in(text.format(" " * 40_000))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.5", True), ("+３", True), ("3만 5천", True), ("5만 원", True), ("10²", False), ("½", False), ("25㎡", False),
        ("18 = 36/2", False), ("12,000원", True), ("₩12,000", True), ("만 2천원", True), ("5만 개", False), ("5만 원입니다", False),
    ],
)  # fmt: skip
def test_a_number_alone_has_no_exponent_fraction_or_unit_but_that_of_money(text: str, expected: bool) -> None:
    assert is_number(text) is expected


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("The cat sat.", "cat sat down", 0.8),
        ("a b c", "d", 0.0),
        ("", "x", 0.0),
        ("The", "the", 0.0),  # no word is left that they could have in common
        ("Denver  Broncos!", "the Denver Broncos", 1.0),
    ],
)
def test_f1_is_squads(answer: str, target: str, score: float) -> None:
    assert f1(answer, target) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("서울에서", "서울", 2 / 3),
        ("《서울》", "서울", 1.0),
        ("서울 특별시", "서울특별시", 1.0),
        ("부산", "서울", 0.0),
        ("?", "!", 0.0),
    ],
)
def test_char_f1_is_korquads(answer: str, target: str, score: float) -> None:
    assert char_f1(answer, target) == pytest.approx(score)


def test_rouge_l_equals_googles_scorer_on_ascii_and_reads_korean() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    target, answer = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
    assert rouge(answer, target) == pytest.approx(10 / 17)  # the, quick, brown, jumps, the: 5 of 8 and 5 of 9
    for given, wanted in ((answer, target), ("snake_case and CAPS-lock 3.5", "snake case, caps lock: 3 5")):
        assert rouge(given, wanted) == RougeScorer(["rougeL"]).score(wanted, given)["rougeL"].fmeasure
    assert rouge("나는 학교에 갔다", "나는 학교에 갔다.") == 1.0


@pytest.mark.parametrize(("given", "wanted"), [("मैं घर जाता हूँ", "में घोर जाते है"), ("நான் வீடு", "நூன் வாடு")])
def test_rouge_l_compares_words_not_their_consonants(given: str, wanted: str) -> None:
    """Hindi and Tamil write vowels as marks on consonants; words of the same consonants are others."""
    assert (rouge(given, given), rouge(given, wanted)) == (1.0, 0.0)


def test_chrf_and_bleu_give_the_values_of_others() -> None:
    """chrF: NLTK's, written independently. BLEU: the example of sacrebleu's README, 48.53."""
    from nltk.translate.chrf_score import sentence_chrf

    answer = "risk assessment must be made of those who are qualified and expertise in the sector - these are the scientists ."
    target = "risk assessment has to be undertaken by those who are qualified and expert in that area - that is the scientists ."
    assert chrf(answer, target) == pytest.approx(sentence_chrf(target, answer, beta=2.0), abs=1e-6)
    assert chrf("abcdefg", "hijklmnop") == 0.0
    assert bleu(target, target) == pytest.approx(1.0)
    references = [
        ("The dog bit the man.", "The dog had bit the man."),
        ("It was not unexpected.", "No one was surprised."),
        ("The man bit him first.", "The man had bitten the dog."),
    ]
    answers = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    pairs = [
        (Example(id=str(at), messages=asked("x"), target=first, other_targets=(second,)), given)
        for at, ((first, second), given) in enumerate(zip(references, answers, strict=True))
    ]
    assert "BLEU 48.5 " in bleu_over_all(pairs)


def test_the_parts_that_letters_are_written_in_make_no_difference_to_the_score_of_all_sentences() -> None:
    said = "환불은 보통 사흘 안에 끝납니다"
    example = Example(id="1", messages=asked("x"), target=decomposed(said), other_targets=("다른 말",))
    assert "chrF2 100.0 " in chrf_over_all([(example, said)])
    assert "chrF2 100.0 " in chrf_over_all([(dataclasses.replace(example, target=said), decomposed(said))])


def test_a_text_in_whole_letters_stays_as_it_is() -> None:
    for text in ("７일, 25 m², ﬁ ½ ①", "환불은 ㎏당 1,000원", "naïve café"):
        assert composed(text) == text


def test_pattern_is_found_anywhere_and_a_slow_one_is_an_error() -> None:
    assert matches("주문번호: 12-345", r"\d{2}-\d{3}") == 1.0
    assert matches("none", r"\d") == 0.0
    with pytest.raises(DataError, match="took more than 2 s on one answer"):
        matches("a" * 5000 + "b", r"^(([a-z])+.)+[A-Z]([a-z])+$")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"name": "Kim", "age": 30}', 1.0),
        ('Here: ```json\n{"age": 30.0, "name": "kim."}\n```', 1.0),
        ('{"name": "Kim"}', 2 / 3),
        ('{"name": "Kim", "age": true}', 0.5),
        ("no JSON", 0.0),
        ("{", 0.0),
    ],
)
def test_json_is_scored_by_its_fields(answer: str, score: float) -> None:
    assert json_score(answer, '{"name": "Kim", "age": 30}') == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('[{"name": "Lee", "age": 4}, {"name": "Kim", "age": 30}]', 1.0),
        ('[{"name": "Kim", "age": 4}, {"name": "Lee", "age": 30}]', 0.5),  # each age is the other's
        ('[{"name": "Kim", "age": 30}]', 2 * 2 / (2 + 4)),
        ('[{"name": "Kim"}, {"name": "Lee", "age": 4}, {"age": 30}]', 2 * 3 / (4 + 4)),
        ('{"name": "Kim", "age": 30}', 0.0),
        ('["Kim", 30, "Lee", 4]', 0.0),
    ],
)
def test_items_of_a_list_of_json_count_as_wholes(answer: str, score: float) -> None:
    assert json_score(answer, '[{"name": "Kim", "age": 30}, {"name": "Lee", "age": 4}]') == pytest.approx(score)


def test_lists_of_json_are_paired_at_every_depth() -> None:
    target = '{"rows": [[1, 2, []], [3, "x"]], "tags": ["a", "a", {"b": [true]}]}'
    assert json_score('{"tags": [{"b": [true]}, "A", "a"], "rows": [["X", 3], [[], 2, 1]]}', target) == 1.0
    assert json_score('{"rows": [[1, 3], [2, "x", []]], "tags": ["a"]}', target) == pytest.approx(2 * 4 / (6 + 8))


def test_json_that_breaks_its_schema_scores_nothing() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    assert json_score('{"age": 3}', "", schema) == 1.0
    assert json_score('{"age": "3"}', '{"age": "3"}', schema) == 0.0
    assert json_score('{"tags": ["b", "a"]}', '{"tags": ["a", "b"]}') == 1.0
    assert json_score("true", "1") == 0.0
    assert json_score('{"operator": "*", "phone": ""}', '{"operator": "/", "phone": "-"}') == 0.0
    assert json_score('{"operator": "* "}', '{"operator": "*"}') == 1.0


DRAFT_07 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("schema", "kept", "broken"),
    [
        ({"pattern": r"^\d+$"}, '"12"', '"12x"'),
        ({"pattern": r"^\d+$"}, "[12]", '"x"'),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, '{"n_a": 1, "b": "x"}', '{"n_a": "x"}'),
        ({"properties": {"a": {}}, "patternProperties": {"^n_": {}}, "additionalProperties": False}, '{"a": 1, "n_b": 2}', '{"b": 1}'),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}, '{"a": "x", "b": 1}', '{"b": "x"}'),
        ({"$schema": DRAFT_07, "items": {"$ref": "#"}, "pattern": "a"}, '["a", "ba"]', '["b"]'),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, '{"type": "object"}', '{"type": 5}'),
        (False, "", "1"),
    ],
)  # fmt: skip
def test_answers_keep_the_patterns_of_a_schema_and_what_they_leave_over(schema: Any, kept: str, broken: str) -> None:
    assert broken_schema(schema) == ""
    assert [json_score(answer, "", schema) for answer in (kept, broken)] == [float(bool(kept)), 0.0]


SLOW = r"^(([a-z])+.)+[A-Z]([a-z])+$"


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": SLOW},
        {"$schema": DRAFT_07, "items": {"$ref": "#"}, "pattern": SLOW},
        {"patternProperties": {SLOW: {}}},
        {"patternProperties": {SLOW: {}}, "additionalProperties": False},
        {"propertyNames": {"pattern": SLOW}},
    ],
)
def test_a_slow_pattern_in_a_schema_is_an_error(monkeypatch: pytest.MonkeyPatch, schema: Any) -> None:
    monkeypatch.setattr("nomoat.judge.scorers.PATTERN_SECONDS", 0.01)
    text = "a" * 5000 + "b"
    with pytest.raises(DataError, match=r"took more than 0\.01 s on one answer"):
        json_score(f'["{text}"]' if "items" in schema else f'"{text}"' if "pattern" in schema else f'{{"{text}": 1}}', "", schema)


def test_a_schema_that_doubles_its_work_at_each_level_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level more, twice as long: 60 would take longer than anyone waits."""
    monkeypatch.setattr("nomoat.judge.scorers.SCHEMA_SECONDS", 0.01)
    ways = [{"properties": {"x": {"$ref": "#/$defs/level"}}, "required": [name]} for name in ("y", "z")]
    schema = {"$ref": "#/$defs/level", "$defs": {"level": {"anyOf": ways}}}
    with pytest.raises(DataError, match=r"the schema took more than 0\.01 s on one answer"):
        json_score('{"x": ' * 60 + "1" + "}" * 60, "", schema)


def test_a_pattern_that_python_takes_minutes_for_is_found_at_once() -> None:
    """By `re`, twice as long for each letter more."""
    assert json_score(f'{{"a": "{"a" * 60}!"}}', "", {"properties": {"a": {"pattern": "^(a+)+$"}}}) == 0.0


DEEP = "(" * 350 + "a" + ")" * 350  # which `re` takes


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"pattern": DEEP}, f"has the pattern `{DEEP}`, which is none (it is nested too deep)"),
        ({"items": {"patternProperties": {DEEP: {}}}}, f"has the pattern `{DEEP}`, which is none (it is nested too deep)"),
        ({"$ref": "#/default", "default": {"pattern": DEEP}}, f"has the pattern `{DEEP}`, which is none (it is nested too deep)"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {"(": {}}},
            "has the pattern `(`, which is none (missing ) at position 1)",
        ),
        ({"properties": {"pattern": {"const": "("}, "patternProperties": {"type": "object"}}, "const": {"pattern": "("}}, ""),
    ],
)
def test_a_schema_with_a_pattern_that_cannot_be_searched_for_is_broken(schema: Any, why: str) -> None:
    """Whatever the answer, it would be worth nothing. Older drafts do not say which names are patterns."""
    assert broken_schema(schema) == why


@pytest.mark.parametrize("answer", ["[" * 500 + "]" * 500, '{"a": ' * 500 + "1" + "}" * 500])
def test_json_of_hundreds_of_levels_is_worth_nothing(answer: str) -> None:
    assert json_score(answer, '{"a": 1}') == 0.0
    assert json_score(answer, "", {"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}) == 0.0
