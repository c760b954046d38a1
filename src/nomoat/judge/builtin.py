"""The suites that come with nomoat: public data sets, asked in the words the field uses for them.

Nothing of the data lies here. Each suite names its data set (`catalog/datasets.toml`: addresses, sha256, terms), which is pulled when
the suite is first used, and the few lines that make examples of it (`builtin_examples.py`, `code_tasks.py`). `prompt_source` says
whose words the prompt is in; where no usual ones exist it says "ours".

To add one: its data set in `catalog/datasets.toml`; what makes examples of it in `builtin_examples.py`, or in `code_tasks.py`; an
entry of `BUILT_IN`, below. Tests marked `data` compare its `num_examples` with what is pulled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nomoat.judge import builtin_examples as examples
from nomoat.judge import code_tasks
from nomoat.records import Example

LM_EVAL = "EleutherAI/lm-evaluation-harness"


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


_humaneval = partial(BuiltIn, dataset="humaneval", metric="code", language="en", num_examples=164)


def _tuned(name: str, title: str, language: str, num_examples: int, read: Callable[[Path], Iterator[Example]]) -> BuiltIn:
    return BuiltIn(
        name=name,
        title=title,
        dataset=name,
        metric="choice",
        language=language,
        num_examples=num_examples,
        prompt_source="ours, as `nomoat tune` trains on it",
        read=read,
    )


def _vader_suite(which: str, file_name: str, title: str, num_examples: int) -> BuiltIn:
    suite = _tuned(f"vader-{which}", title, "en", num_examples, partial(examples.vader, file_name=f"{file_name}_GroundTruth.txt"))
    return replace(suite, prompt_source=f"{suite.prompt_source}; ratings of at least {examples.CLEAR_RATING} from zero")


def _translation(data: str, source: str, target: str, title: str, num_examples: int, pairs: Any) -> BuiltIn:
    return BuiltIn(
        name=f"{data}-{source}-{target}",
        title=title,
        dataset=f"{data}-ko-en",
        metric="chrf",
        language=f"{source}-{target}",
        num_examples=num_examples,
        prompt_source="ours",
        read=partial(examples.into, language="English" if target == "en" else "Korean", pairs=pairs),
        settings={"max_new_tokens": 256},
    )


BUILT_IN = {
    suite.name: suite
    for suite in (
        _tuned("banking77", "Which of 77 intents a bank's customer has", "en", 3080, examples.banking77),
        BuiltIn(
            name="e2e_nlg",
            title="Attributes of a restaurant into sentences",
            dataset="e2e_nlg",
            metric="rouge",
            language="en",
            num_examples=630,
            prompt_source="ours; the best ROUGE-L over all of an input's sentences",
            read=examples.e2e_nlg,
            settings={"max_new_tokens": 128},
        ),
        BuiltIn(
            name="gsm8k",
            title="Grade-school mathematics in words",
            dataset="gsm8k",
            metric="numeric",
            language="en",
            num_examples=1319,
            prompt_source=f"{LM_EVAL}, gsm8k, after the first {examples.GSM8K_SHOTS} training problems; scored by ours, `numeric`",
            read=examples.gsm8k,
            settings={"chat": False, "delimiter": " ", "max_new_tokens": 256, "stop": ("Question:", "</s>", "<|im_end|>")},
        ),
        _humaneval(
            name="humaneval",
            title="Python functions from their docstring, for chat models",
            prompt_source="openai/simple-evals, humaneval_eval",
            read=code_tasks.humaneval,
            settings={"max_new_tokens": 768},
        ),
        _humaneval(
            name="humaneval-evalplus",
            title="HumanEval as EvalPlus asks models whose weights it has: the answer is begun for them",
            prompt_source="evalplus/evalplus, chat models, with its words put into the model's mouth",
            read=code_tasks.humaneval_evalplus,
            settings={"max_new_tokens": 768, "stop": ("\n```\n",), "answer_start": code_tasks.EVALPLUS_START},
        ),
        _humaneval(
            name="humaneval-base",
            title="Python functions from their docstring, continued as text",
            prompt_source=f"Chen et al. 2021; stops as {LM_EVAL}, humaneval",
            read=code_tasks.humaneval_base,
            settings={
                "max_new_tokens": 512,
                "chat": False,
                "delimiter": " ",
                "stop": ("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
            },
        ),
        _kobest("boolq", "Korean: yes or no, from a text", 1404, examples.kobest_boolq, delimiter="  "),
        _kobest("copa", "Korean: which cause or result", 1000, examples.kobest_copa),
        _kobest("hellaswag", "Korean: how it goes on", 500, examples.kobest_hellaswag),
        _kobest("sentineg", "Korean: sentiment of negated sentences", 397, examples.kobest_sentineg),
        _kobest("wic", "Korean: the same sense of a word or not", 1260, examples.kobest_wic),
        BuiltIn(
            name="lora-land",
            title="Scores of 8 systems on 31 tasks, as published; nothing is asked",
            dataset="lora-land",
            metric="published",
            language="en",
            num_examples=31,
            prompt_source="none: a table of scores",
            read=examples.recorded,
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
            read=examples.mt_bench,
            settings={"max_new_tokens": 1024},
        ),
        _translation("news", "en", "ko", "News sentences into Korean", 1942, examples.news),
        _translation("news", "ko", "en", "News sentences into English", 1995, examples.news),
        _tuned("nsmc", "Korean film reviews (nomoat's subset, not the official test)", "ko", 3414, examples.nsmc),
        BuiltIn(
            name="routellm-gsm8k",
            title="GSM8K as two models answered it, with scores; nothing is asked",
            dataset="routellm-gsm8k",
            metric="recorded",
            language="en",
            num_examples=1319,
            prompt_source="RouteLLM",
            read=examples.recorded,
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
            read=examples.recorded,
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
            read=examples.self_instruct,
            settings={"max_new_tokens": 1024},
        ),
        _tuned("sms_spam", "Text messages: spam or not", "en", 1115, examples.sms_spam),
        _translation("tatoeba", "en", "ko", "Short sentences into Korean", 3497, examples.tatoeba),
        _translation("tatoeba", "ko", "en", "Short sentences into English", 3713, examples.tatoeba),
        BuiltIn(
            name="truthfulqa-mc",
            title="What people wrongly believe: one of several answers is true (mc1)",
            dataset="truthfulqa",
            metric="choice",
            language="en",
            num_examples=817,
            prompt_source=f"{LM_EVAL}, truthfulqa_mc1",
            read=examples.truthfulqa,
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
            read=examples.vicuna80,
        ),
    )
}
