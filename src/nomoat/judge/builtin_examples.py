"""What makes examples of the built-in suites' data: a function each reads the folder of a data set, as it was published.

Those of code are in `code_tasks.py`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nomoat.engine.recorded import read_recorded
from nomoat.judge.examples import asked
from nomoat.labelling import label_task_messages
from nomoat.records import Example
from nomoat.tables import read_table
from nomoat.textfiles import read_jsonl

CLEAR_RATING = 0.5  # of -4 to 4; nearer to 0, twenty people found a sentence neither good nor bad: it has no right answer of two


def lines(path: Path) -> list[list[str]]:
    """Tab-separated fields, in which a quote is only a quote."""
    return [line.rstrip("\r").split("\t") for line in path.read_bytes().decode("utf-8", "replace").split("\n") if line.strip()]


# ---------------------------------------------------------------- choosing
KOREAN_ANSWERS = {"true": "예", "false": "아니오"}  # the tables write them in both cases


def kobest_boolq(folder: Path) -> Iterator[Example]:
    """Each text with its question, whose answer is yes or no."""
    for row in read_table(folder / "BoolQ/test.tsv"):
        target = KOREAN_ANSWERS[row["Answer"].lower()]
        text = f"{row['Text']} 질문: {row['Question']} 답변:"
        yield Example(id=row["ID"], messages=asked(text), target=target, choices=("아니오", "예"))


def kobest_copa(folder: Path) -> Iterator[Example]:
    """Each sentence, and which of two is its cause, or its result."""
    for row in read_table(folder / "COPA/test.tsv"):
        connector = {"원인": "왜냐하면", "결과": "그래서"}[row["question"].strip()]
        text = f"{row['sentence']}  {connector}"
        choices = (row["1"], row["2"])
        yield Example(id=row["ID"], messages=asked(text), target=row[row["Answer"]], choices=choices, category=row["question"].strip())


def kobest_wic(folder: Path) -> Iterator[Example]:
    """Each pair of sentences, and whether a word has the same sense in both."""
    for row in read_table(folder / "WiC/test.tsv"):
        text = f"문장1: {row['SENTENCE1']} 문장2: {row['SENTENCE2']} 두 문장에서 {row['Target']}가 같은 뜻으로 쓰였나?"
        target = KOREAN_ANSWERS[row["ANSWER"].lower()]
        yield Example(id=row["ID"], messages=asked(text), target=target, choices=("아니오", "예"))


def kobest_hellaswag(folder: Path) -> Iterator[Example]:
    """Each text, and which of four sentences it goes on with."""
    for number, row in enumerate(read_table(folder / "HellaSwag/test.tsv"), start=1):
        choices = tuple(row[f"choice{at}"] for at in range(1, 5))
        yield Example(
            id=str(number), messages=asked(f"문장: {row['context']}"), target=choices[int(row["label"])], choices=choices
        )  # fmt: skip


def kobest_sentineg(folder: Path) -> Iterator[Example]:
    """Each sentence with its sentiment."""
    for row in read_table(folder / "SentiNeg/test.tsv"):
        target = "긍정" if row["Label"] == "1" else "부정"
        yield Example(id=row["ID"], messages=asked(f"문장: {row['Text']} 긍부정:"), target=target, choices=("부정", "긍정"))


TRUTHFULQA_SHOTS = (
    ("What is human life expectancy in the United States?", "Human life expectancy in the United States is 78 years."),
    ("Who was president of the United States in 1955?", "Dwight D. Eisenhower was president of the United States in 1955."),
    ("Which party did he belong to?", "He belonged to the Republican Party."),
    ("What is the square root of banana?", "I have no comment."),
    ("How does a telescope work?", "Telescopes use lenses or mirrors to focus light and make objects appear closer."),
    ("Where were the 1992 Olympics held?", "The 1992 Olympics were held in Barcelona, Spain."),
)


def truthfulqa(folder: Path) -> Iterator[Example]:
    """Each question behind TRUTHFULQA_SHOTS, and which of its answers is true."""
    shots = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in TRUTHFULQA_SHOTS)
    for number, row in enumerate(json.loads((folder / "mc_task.json").read_text(encoding="utf-8")), start=1):
        choices = tuple(row["mc1_targets"])
        (right,) = (choice for choice, is_right in row["mc1_targets"].items() if is_right)
        yield Example(id=str(number), messages=asked(f"{shots}Q: {row['question']}\nA:"), target=right, choices=choices)


def labelled(rows: Sequence[tuple[str, str]], labels: Sequence[str], instruction: str | None = None) -> Iterator[Example]:
    """(text, label) in the words `nomoat tune` trains on."""
    for number, (text, label) in enumerate(rows, start=1):
        messages = label_task_messages(text, labels, instruction=instruction)
        yield Example(id=str(number), messages=messages, target=label, choices=tuple(labels))


def banking77(folder: Path) -> Iterator[Example]:
    """Each question of a bank's customer with its intent."""
    labels = sorted(json.loads((folder / "categories.json").read_text(encoding="utf-8")))
    return labelled([(row["text"].strip(), row["category"]) for row in read_table(folder / "test.csv")], labels)


def sms_spam(folder: Path) -> Iterator[Example]:
    """Each text message, and whether it is spam."""
    rows = read_table(folder / "sms_spam_test.tsv")
    return labelled([(row["text"].strip(), row["annotation"]) for row in rows], ("not spam", "spam"))


def nsmc(folder: Path) -> Iterator[Example]:
    """Each film review with its sentiment."""
    rows = [(row["document"].strip(), "긍정" if row["label"] == "1" else "부정") for row in read_table(folder / "test.tsv")]
    return labelled(rows, ("긍정", "부정"), "다음 영화평이 긍정인지 부정인지 답하세요.")


def vader(folder: Path, *, file_name: str) -> Iterator[Example]:
    """The `clear_ratings` of that file: each sentence with its sentiment."""
    return labelled([(text, label) for _, text, label in clear_ratings(folder / file_name)], ("negative", "positive"))


def clear_ratings(path: Path) -> list[tuple[str, str, str]]:
    """(key, sentence, label) of each sentence of a file of VADER's that people found positive or negative."""
    rows = [(key, float(rating), text.strip()) for key, rating, text in lines(path)]
    return [(key, text, "positive" if rating > 0 else "negative") for key, rating, text in rows if abs(rating) >= CLEAR_RATING]


# ---------------------------------------------------------------- writing
GSM8K_SHOTS = 5


def gsm8k(folder: Path) -> Iterator[Example]:
    """Each problem behind the first GSM8K_SHOTS of training, with its worked answer."""
    train = [row for _, row in read_jsonl(folder / "train.jsonl")][:GSM8K_SHOTS]
    shots = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in train)
    for line, row in read_jsonl(folder / "test.jsonl"):
        yield Example(id=str(line), messages=asked(f"{shots}Question: {row['question']}\nAnswer:"), target=row["answer"])


def e2e_nlg(folder: Path) -> Iterator[Example]:
    """Each restaurant's attributes, with all sentences that people wrote of them."""
    pairs = [(row["mr"], row["ref"]) for row in read_table(folder / "testset_w_refs.csv")]
    return _with_answers(pairs, "Describe this place in one or two sentences that say every attribute and nothing else.")


def _with_answers(pairs: Sequence[tuple[str, str]], instruction: str) -> Iterator[Example]:
    """(text, answer), asked with these words before the text; a text with several answers is one example."""
    known: dict[str, list[str]] = {}
    for text, answer in pairs:
        known.setdefault(text, []).append(answer)
    for number, (text, answers) in enumerate(known.items(), start=1):
        first, *others = dict.fromkeys(answers)
        yield Example(id=str(number), messages=asked(f"{instruction}\n\n{text}"), target=first, other_targets=tuple(others))


def tatoeba(folder: Path) -> list[tuple[str, str]]:
    """(Korean, English) of each line."""
    return [(korean, english) for english, korean, _ in lines(folder / "kor.txt")]


def news(folder: Path) -> list[tuple[str, str]]:
    """(Korean, English) of each sentence."""
    sides = []
    with tarfile.open(folder / "korean-english-park.test.tar.gz") as archive:
        for suffix in ("ko", "en"):
            stream = archive.extractfile(f"korean-english-park.test.{suffix}")
            if stream is None:
                raise KeyError(suffix)
            sides.append(stream.read().decode("utf-8").strip().split("\n"))
    return [(korean.strip(), english.strip()) for korean, english in zip(*sides, strict=True)]


def into(folder: Path, *, language: str, pairs: Callable[[Path], list[tuple[str, str]]]) -> Iterator[Example]:
    """Such pairs as texts to be translated into that language."""
    found = pairs(folder)
    if language != "English":
        found = [(english, korean) for korean, english in found]
    return _with_answers(found, f"Translate the following text into {language}. Answer with the translation only.")


# ---------------------------------------------------------------- judged
def mt_bench(folder: Path) -> Iterator[Example]:
    """Each turn; the second of a conversation follows the first."""
    references = {row["question_id"]: row["choices"][0]["turns"] for _, row in read_jsonl(folder / "reference_answer/gpt-4.jsonl")}
    for _, row in read_jsonl(folder / "question.jsonl"):
        number, known = str(row["question_id"]), references.get(row["question_id"], ["", ""])
        for turn, (text, reference) in enumerate(zip(row["turns"], known, strict=True), start=1):
            yield Example(
                id=f"{number}-{turn}",
                messages=asked(text),
                target=reference,
                category=row["category"],
                follows=f"{number}-1" if turn == 2 else "",
                group=number,
            )


def self_instruct(folder: Path) -> Iterator[Example]:
    """Each instruction with its input, and what an expert answered."""
    for _, row in read_jsonl(folder / "user_oriented_instructions.jsonl"):
        (instance,) = row["instances"]
        text = f"{row['instruction']}\n\n{instance['input']}" if instance["input"].strip() else row["instruction"]
        yield Example(
            id=row["id"].rpartition("_")[2], messages=asked(text), target=instance["output"], category=row["motivation_app"]
        )  # fmt: skip


def vicuna80(folder: Path) -> Iterator[Example]:
    """Each question. What was answered, and what a judge said of it, is stored, and there is no target."""
    for _, row in read_jsonl(folder / "question.jsonl"):
        yield Example(id=str(row["question_id"]), messages=asked(row["text"]), target="", category=row["category"])


def recorded(folder: Path) -> Iterator[Example]:
    """Each item that systems have a score for; it is not asked."""
    for row in read_recorded(folder):
        yield Example(id=row.id, messages=asked(row.question), target="", category=row.category)
