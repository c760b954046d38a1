"""A teacher on loopback: it answers what `distil` asks as a chat model would, some of it useless, the same again for the same seed."""

from __future__ import annotations

import random
import re
from http.server import BaseHTTPRequestHandler

from misbehaving import Act, counted

WORDS = [
    "river", "coin", "lamp", "winter", "bread", "tax", "whale", "poem", "bridge", "orchard", "clock", "fever", "harbour", "melon",
    "priest", "saddle", "anvil", "cedar", "drought", "기차", "바람", "소금",
]  # fmt: skip
PROMPT_TOKENS, COMPLETION_TOKENS = 700, 300


def task_text(number: int, seed: int) -> str:
    """A task that no other number or seed has."""
    words = " ".join(random.Random(f"{seed} {number}").sample(WORDS, 6))
    return f"{number}. **Instruction:** Explain {words}\n   **Input:** <noinput>\n   **Output:** Because {words}.\n\n"


def write_tasks(handler: BaseHTTPRequestHandler) -> None:
    """Good tasks with each of these among them: one said twice, one about a picture, one without an answer."""
    body = handler.body  # type: ignore[attr-defined]
    first, last = map(int, re.findall(r"numbered from (\d+) to (\d+)", body["messages"][-1]["content"])[0])
    good = [task_text(number, body["seed"]) for number in range(first, last - 2)]
    bad = [
        good[0].replace("Explain", "Please explain", 1),
        f"{last - 1}. **Instruction:** Describe the picture of {body['seed']}\n   **Output:** A tree.\n\n",
        f"{last}. **Instruction:** Ask something of number {body['seed']}\n   **Input:** x\n",
    ]
    counted("Here you are:\n\n" + "".join([*good, *bad]), PROMPT_TOKENS, COMPLETION_TOKENS)(handler)


def by_text(*acts: tuple[str, Act]) -> Act:
    """Acts as the second of a pair where the text holds the first."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.body["messages"][-1]["content"].split("Text:")[-1]  # type: ignore[attr-defined]
        next(one for word, one in acts if word in asked)(handler)

    return act


def write_labels(*answers: tuple[str, str]) -> Act:
    """Answers with the second of a pair where the text holds the first."""
    return by_text(*((word, counted(answer, PROMPT_TOKENS, 2)) for word, answer in answers))
