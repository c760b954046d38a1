"""How long the privacy guard looks for every kind of private data, by what a text is.

    python benchmarks/guard.py [--letters 20000] [--json FILE]

Texts, in which there is nothing to find: prose in English and Korean (this project's pages), its source code, its JSON, a base64
image, a table of numbers, a log, and a prompt of 100,000 tokens (400,000 letters of prose). `ms` is the processor's time, the quickest
of three; what the guard remembers is not asked. `growth`: how many times as long four times the text takes, where a piece is repeated
to fill it; 4 is proportional.
"""

from __future__ import annotations

import argparse
import base64
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facts import circumstances, write

from nomoat.route import pii

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("duel", "tune", "run", "suites", "models", "distil", "replays")]
PIECES = (
    *(
        "1",
        "1 ",
        "12-",
        "- ",
        "a",
        "A1",
        "password ",
        "password=",
        "token: ",
        "=",
        "\n",
        " ",
        "가",
        "비밀번호 ",
        "서울시 강남구 ",
        "계좌 ",
        "010-",
    ),
    *("+82 ", "a@", "://a:b", "sk-", "eyJa.", "//a/", "_", "*", "\\u00", "%20", "&#", '{"a":1},', "0.12345,", "aB1", "identified by "),
    *("login ", "-u ", "12 Main St ", "passport ", "DE89 1", "1-\n", "①", "e\u0301", "abcdefghijklmnopqrstuvw\n"),
)


def texts(letters: int) -> dict[str, str]:
    draw = random.Random(1)
    image = base64.b64encode(draw.randbytes(letters)).decode()
    table = (",".join(str(draw.randrange(10**5)) for _ in range(8)) for _ in range(letters // 40))
    log = (
        f"12:00:{at % 60:02},{at % 1000:03} INFO GET /v1/items/{at} 200 trace={draw.randbytes(8).hex()}" for at in range(letters // 40)
    )
    return {
        "English": joined(PAGES, letters),
        "Korean": (joined([ROOT / "README.ko.md"], letters) * 10)[:letters],
        "code": joined(ROOT.glob("src/nomoat/engine/*.py"), letters),
        "JSON": joined(ROOT.glob("benchmarks/results/*.json"), letters),
        "base64": f"data:image/png;base64,{image}"[:letters],
        "numbers": "\n".join(table)[:letters],
        "log": "\n".join(log)[:letters],
        "100,000 tokens": (joined(PAGES, 400_000) * 4)[:400_000],
    }


def joined(paths: Iterable[Path], letters: int) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(paths))[:letters]


def seconds(text: str, times: int = 3) -> float:
    """Of the processor, the quickest of so many."""
    found = []
    for _ in range(times):
        started = time.process_time()
        pii.find(text, names=["김철수", "Project Moat"])
        found.append(time.process_time() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--letters", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pii.find("010-1234-567")  # what is loaded late
    found: dict[str, Any] = {}
    for name, text in texts(options.letters).items():
        found[name] = {"letters": len(text), "ms": round(1000 * seconds(text), 2), "kinds": pii.find(text)}
        print(f"{name:16} {len(text):8,} letters {found[name]['ms']:10,.1f} ms")
    growth = {}
    for piece in PIECES:
        short, long = ((piece * length)[:length] for length in (10_000, 40_000))
        growth[piece] = round(seconds(long, 1) / seconds(short, 1), 1)
    worst = max(growth, key=lambda piece: growth[piece])
    print(f"growth: {growth[worst]} at most, of {worst!r}")
    write(options.json, {**circumstances(), "letters": options.letters, "texts": found, "growth": growth})


if __name__ == "__main__":
    main()
