"""The suites that come with nomoat: public data sets, asked in the words the field uses for them.

Nothing of the data lies here. Each suite names its data set (`catalog/datasets.toml`: addresses, sha256, terms), which is pulled when
the suite is first used, and the few lines that make examples of it. `prompt_source` says whose words the prompt is in; where no
usual ones exist it says "ours".
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat.engine.recorded import read_recorded
from nomoat.judge import code_tasks
from nomoat.judge.examples import asked
from nomoat.labelling import label_task_messages
from nomoat.records import Example
from nomoat.tables import read_table
from nomoat.textfiles import read_jsonl

LM_EVAL = "EleutherAI/lm-evaluation-harness"
CLEAR_RATING = 0.5  # of -4 to 4; nearer to 0, twenty people found a sentence neither good nor bad: it has no right answer of two


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """What is known of a suite before its data is here. `settings` are those of a suite's TOML; `read` makes the examples.

    `notes` say what has to be known to read its scores rightly.
    """

    name: str
    title: str
    dataset: str
    metric: str
    language: str
    num_examples: int
    prompt_source: str
    read: Callable[[Path], Iterator[Example]]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- reading
def lines(path: Path) -> list[list[str]]:
    """Tab-separated fields, in which a quote is only a quote."""
    return [line.rstrip("\r").split("\t") for line in path.read_bytes().decode("utf-8", "replace").split("\n") if line.strip()]


# ---------------------------------------------------------------- choosing
KOREAN_ANSWERS = {"true": "예", "false": "아니오"}  # the tables write them in both cases


def _kobest_boolq(folder: Path) -> Iterator[Example]:
    for row in read_table(folder / "BoolQ/test.tsv"):
        target = KOREAN_ANSWERS[row["Answer"].lower()]
        text = f"{row['Text']} 질문: {row['Question']} 답변:"
        yield Example(id=row["ID"], messages=asked(text), target=target, choices=("아니오", "예"))


def _kobest_copa(folder: Path) -> Iterator[Example]:
    for row in read_table(folder / "COPA/test.tsv"):
        connector = {"원인": "왜냐하면", "결과": "그래서"}[row["question"].strip()]
        text = f"{row['sentence']}  {connector}"
        choices = (row["1"], row["2"])
        yield Example(id=row["ID"], messages=asked(text), target=row[row["Answer"]], choices=choices, category=row["question"].strip())


def _kobest_wic(folder: Path) -> Iterator[Example]:
    for row in read_table(folder / "WiC/test.tsv"):
        text = f"문장1: {row['SENTENCE1']} 문장2: {row['SENTENCE2']} 두 문장에서 {row['Target']}가 같은 뜻으로 쓰였나?"
        target = KOREAN_ANSWERS[row["ANSWER"].lower()]
        yield Example(id=row["ID"], messages=asked(text), target=target, choices=("아니오", "예"))


def _kobest_hellaswag(folder: Path) -> Iterator[Example]:
    for number, row in enumerate(read_table(folder / "HellaSwag/test.tsv"), start=1):
        choices = tuple(row[f"choice{at}"] for at in range(1, 5))
        yield Example(
            id=str(number), messages=asked(f"문장: {row['context']}"), target=choices[int(row["label"])], choices=choices
        )  # fmt: skip


def _kobest_sentineg(folder: Path) -> Iterator[Example]:
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


def _truthfulqa(folder: Path) -> Iterator[Example]:
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


def _banking77(folder: Path) -> Iterator[Example]:
    labels = sorted(json.loads((folder / "categories.json").read_text(encoding="utf-8")))
    return labelled([(row["text"].strip(), row["category"]) for row in read_table(folder / "test.csv")], labels)


def _sms_spam(folder: Path) -> Iterator[Example]:
    rows = read_table(folder / "sms_spam_test.tsv")
    return labelled([(row["text"].strip(), row["annotation"]) for row in rows], ("not spam", "spam"))


def _nsmc(folder: Path) -> Iterator[Example]:
    rows = [(row["document"].strip(), "긍정" if row["label"] == "1" else "부정") for row in read_table(folder / "test.tsv")]
    return labelled(rows, ("긍정", "부정"), "다음 영화평이 긍정인지 부정인지 답하세요.")


def _vader(file_name: str) -> Callable[[Path], Iterator[Example]]:
    def read(folder: Path) -> Iterator[Example]:
        return labelled([(text, label) for _, text, label in clear_ratings(folder / file_name)], ("negative", "positive"))

    return read


def clear_ratings(path: Path) -> list[tuple[str, str, str]]:
    """(key, sentence, label) of each sentence of a file of VADER's that people found positive or negative."""
    rows = [(key, float(rating), text.strip()) for key, rating, text in lines(path)]
    return [(key, text, "positive" if rating > 0 else "negative") for key, rating, text in rows if abs(rating) >= CLEAR_RATING]


# ---------------------------------------------------------------- writing
GSM8K_SHOTS = 5


def _gsm8k(folder: Path) -> Iterator[Example]:
    train = [row for _, row in read_jsonl(folder / "train.jsonl")][:GSM8K_SHOTS]
    shots = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in train)
    for line, row in read_jsonl(folder / "test.jsonl"):
        yield Example(id=str(line), messages=asked(f"{shots}Question: {row['question']}\nAnswer:"), target=row["answer"])


def _e2e_nlg(folder: Path) -> Iterator[Example]:
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


def _tatoeba(folder: Path) -> list[tuple[str, str]]:
    return [(korean, english) for english, korean, _ in lines(folder / "kor.txt")]


def _news(folder: Path) -> list[tuple[str, str]]:
    sides = []
    with tarfile.open(folder / "korean-english-park.test.tar.gz") as archive:
        for suffix in ("ko", "en"):
            stream = archive.extractfile(f"korean-english-park.test.{suffix}")
            if stream is None:
                raise KeyError(suffix)
            sides.append(stream.read().decode("utf-8").strip().split("\n"))
    return [(korean.strip(), english.strip()) for korean, english in zip(*sides, strict=True)]


def _into(language: str, pairs: Callable[[Path], list[tuple[str, str]]]) -> Callable[[Path], Iterator[Example]]:
    def read(folder: Path) -> Iterator[Example]:
        found = pairs(folder)
        if language != "English":
            found = [(english, korean) for korean, english in found]
        return _with_answers(found, f"Translate the following text into {language}. Answer with the translation only.")

    return read


# ---------------------------------------------------------------- judged
def _mt_bench(folder: Path) -> Iterator[Example]:
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


def _self_instruct(folder: Path) -> Iterator[Example]:
    for _, row in read_jsonl(folder / "user_oriented_instructions.jsonl"):
        (instance,) = row["instances"]
        text = f"{row['instruction']}\n\n{instance['input']}" if instance["input"].strip() else row["instruction"]
        yield Example(
            id=row["id"].rpartition("_")[2], messages=asked(text), target=instance["output"], category=row["motivation_app"]
        )  # fmt: skip


def _vicuna80(folder: Path) -> Iterator[Example]:
    for _, row in read_jsonl(folder / "question.jsonl"):
        yield Example(id=str(row["question_id"]), messages=asked(row["text"]), target="", category=row["category"])


def _recorded(folder: Path) -> Iterator[Example]:
    for row in read_recorded(folder):
        yield Example(id=row.id, messages=asked(row.question), target="", category=row.category)


# ---------------------------------------------------------------- the table
def _kobest(task: str, title: str, num_examples: int, read: Callable[[Path], Iterator[Example]], **settings: Any) -> BuiltIn:
    return BuiltIn(
        name=f"kobest-{task}",
        title=title,
        dataset="kobest",
        metric="choice",
        language="ko",
        num_examples=num_examples,
        prompt_source=f"{LM_EVAL}, kobest_{task}, no examples shown",
        read=read,
        settings={"chat": False, "delimiter": " ", **settings},
    )


def _humaneval(name: str, title: str, prompt_source: str, read: Callable[[Path], Iterator[Example]], **settings: Any) -> BuiltIn:
    return BuiltIn(
        name=name,
        title=title,
        dataset="humaneval",
        metric="code",
        language="en",
        num_examples=164,
        prompt_source=prompt_source,
        read=read,
        settings=settings,
    )


def _vader_suite(which: str, file_name: str, title: str, num_examples: int) -> BuiltIn:
    return BuiltIn(
        name=f"vader-{which}",
        title=title,
        dataset=f"vader-{which}",
        metric="choice",
        language="en",
        num_examples=num_examples,
        prompt_source=f"ours, as `nomoat tune` trains on it; ratings of at least {CLEAR_RATING} from zero",
        read=_vader(f"{file_name}_GroundTruth.txt"),
    )


def _translation(data: str, source: str, target: str, title: str, num_examples: int, pairs: Any) -> BuiltIn:
    return BuiltIn(
        name=f"{data}-{source}-{target}",
        title=title,
        dataset=f"{data}-ko-en",
        metric="chrf",
        language=f"{source}-{target}",
        num_examples=num_examples,
        prompt_source="ours",
        read=_into("English" if target == "en" else "Korean", pairs),
        settings={"max_new_tokens": 256},
    )


BUILT_IN = {
    suite.name: suite
    for suite in (
        BuiltIn(
            name="banking77",
            title="Which of 77 intents a bank's customer has",
            dataset="banking77",
            metric="choice",
            language="en",
            num_examples=3080,
            prompt_source="ours, as `nomoat tune` trains on it",
            read=_banking77,
        ),
        BuiltIn(
            name="e2e_nlg",
            title="Attributes of a restaurant into sentences",
            dataset="e2e_nlg",
            metric="rouge",
            language="en",
            num_examples=630,
            prompt_source="ours; the best ROUGE-L over all of an input's sentences",
            read=_e2e_nlg,
            settings={"max_new_tokens": 128},
        ),
        BuiltIn(
            name="gsm8k",
            title="Grade-school mathematics in words",
            dataset="gsm8k",
            metric="numeric",
            language="en",
            num_examples=1319,
            prompt_source=f"{LM_EVAL}, gsm8k, after the first {GSM8K_SHOTS} training problems; scored by ours, `numeric`",
            read=_gsm8k,
            settings={"chat": False, "delimiter": " ", "max_new_tokens": 256, "stop": ("Question:", "</s>", "<|im_end|>")},
        ),
        _humaneval(
            "humaneval",
            "Python functions from their docstring, for chat models",
            "openai/simple-evals, humaneval_eval",
            code_tasks.humaneval,
            max_new_tokens=768,
        ),
        _humaneval(
            "humaneval-evalplus",
            "HumanEval as EvalPlus asks models whose weights it has: the answer is begun for them",
            "evalplus/evalplus, chat models, with its words put into the model's mouth",
            code_tasks.humaneval_evalplus,
            max_new_tokens=768,
            stop=("\n```\n",),
            answer_start=code_tasks.EVALPLUS_START,
        ),
        _humaneval(
            "humaneval-base",
            "Python functions from their docstring, continued as text",
            f"Chen et al. 2021; stops as {LM_EVAL}, humaneval",
            code_tasks.humaneval_base,
            max_new_tokens=512,
            chat=False,
            delimiter=" ",
            stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        ),
        _kobest("boolq", "Korean: yes or no, from a text", 1404, _kobest_boolq, delimiter="  "),
        _kobest("copa", "Korean: which cause or result", 1000, _kobest_copa),
        _kobest("hellaswag", "Korean: how it goes on", 500, _kobest_hellaswag),
        _kobest("sentineg", "Korean: sentiment of negated sentences", 397, _kobest_sentineg),
        _kobest("wic", "Korean: the same sense of a word or not", 1260, _kobest_wic),
        BuiltIn(
            name="lora-land",
            title="Scores of 8 systems on 31 tasks, as published; nothing is asked",
            dataset="lora-land",
            metric="published",
            language="en",
            num_examples=31,
            prompt_source="none: a table of scores",
            read=_recorded,
            notes=(
                "each item is a task with its published score: what a task's own test questions leave open is not in these intervals",
                "completion prompts and short answers: some of GPT-4's low scores (0.014 on reuters) are format as much as ability",
            ),
        ),
        BuiltIn(
            name="mbpp",
            title="Short Python tasks with three asserts each",
            dataset="mbpp",
            metric="code",
            language="en",
            num_examples=427,
            prompt_source="Austin et al. 2021, no examples shown",
            read=code_tasks.mbpp,
            settings={"max_new_tokens": 512},
        ),
        BuiltIn(
            name="mt-bench",
            title="Two-turn questions for a judge",
            dataset="mt-bench",
            metric="judge",
            language="en",
            num_examples=160,
            prompt_source="Zheng et al. 2023",
            read=_mt_bench,
            settings={"max_new_tokens": 1024},
        ),
        _translation("news", "en", "ko", "News sentences into Korean", 1942, _news),
        _translation("news", "ko", "en", "News sentences into English", 1995, _news),
        BuiltIn(
            name="nsmc",
            title="Korean film reviews (nomoat's subset, not the official test)",
            dataset="nsmc",
            metric="choice",
            language="ko",
            num_examples=3414,
            prompt_source="ours, as `nomoat tune` trains on it",
            read=_nsmc,
        ),
        BuiltIn(
            name="routellm-gsm8k",
            title="GSM8K as two models answered it, with scores; nothing is asked",
            dataset="routellm-gsm8k",
            metric="recorded",
            language="en",
            num_examples=1319,
            prompt_source="RouteLLM",
            read=_recorded,
            notes=(
                "scores are RouteLLM's: right if the number at the answer's end is the target's, compared as text",
                "31 of Mixtral's 1,319 answers break off inside a formula and count as wrong: up to 2.4 points of the difference",
                "42 of GPT-4's are wrong for a `.00` alone ($20.00 for 20): compared as numbers, 1,171 to 843 are right, +24.9 points",
            ),
        ),
        BuiltIn(
            name="routellm-mmlu",
            title="MMLU as two models were scored on it; nothing is asked",
            dataset="routellm-mmlu",
            metric="recorded",
            language="en",
            num_examples=14042,
            prompt_source="RouteLLM",
            read=_recorded,
            notes=("scores are RouteLLM's; the answers themselves were not kept",),
        ),
        BuiltIn(
            name="self-instruct-252",
            title="Instructions that experts wrote, for a judge",
            dataset="self-instruct-252",
            metric="judge",
            language="en",
            num_examples=252,
            prompt_source="Wang et al. 2022: instruction, empty line, input",
            read=_self_instruct,
            settings={"max_new_tokens": 1024},
        ),
        BuiltIn(
            name="sms_spam",
            title="Text messages: spam or not",
            dataset="sms_spam",
            metric="choice",
            language="en",
            num_examples=1115,
            prompt_source="ours, as `nomoat tune` trains on it",
            read=_sms_spam,
        ),
        _translation("tatoeba", "en", "ko", "Short sentences into Korean", 3497, _tatoeba),
        _translation("tatoeba", "ko", "en", "Short sentences into English", 3713, _tatoeba),
        BuiltIn(
            name="truthfulqa-mc",
            title="What people wrongly believe: one of several answers is true (mc1)",
            dataset="truthfulqa",
            metric="choice",
            language="en",
            num_examples=817,
            prompt_source=f"{LM_EVAL}, truthfulqa_mc1",
            read=_truthfulqa,
            settings={"chat": False, "delimiter": " "},
        ),
        _vader_suite("movies", "movieReviewSnippets", "Sentiment of film-review sentences", 10072),
        _vader_suite("news", "nytEditorialSnippets", "Sentiment of editorial sentences", 2970),
        _vader_suite("reviews", "amazonReviewSnippets", "Sentiment of product-review sentences", 2985),
        _vader_suite("tweets", "tweets", "Sentiment of tweets", 3432),
        BuiltIn(
            name="vicuna80",
            title="The Vicuna blog's questions, with stored answers and GPT-4's reviews",
            dataset="vicuna80",
            metric="review",
            language="en",
            num_examples=80,
            prompt_source="Chiang et al. 2023",
            read=_vicuna80,
        ),
    )
}
