"""What a learned router recovers of the gap between two models: character n-grams, as `nomoat route learn` has them, against the mean
hidden states of a small model on this machine, and both together.

    python benchmarks/routing.py [--model smollm2-135m] [--mmlu 3000] [--json FILE]

RouteLLM's stored outcomes (lm-sys/RouteLLM, arXiv:2406.18665): Mixtral-8x7B as the local model, gpt-4-1106-preview as the cloud, on
GSM8K and MMLU. Every chance is that of a router which learned from the other four fifths of the prompts. Embeddings are made of a
fixed sample of MMLU, which n-grams are measured on too; of all of MMLU, n-grams alone.

"as learned" is what `route learn` does. For "C chosen" the strength of the logistic regression is chosen by log loss on a fifth of
what is learned from. Embeddings have the mean 0 and the spread 1 over the root of their number, so that their rows are about as long
as those of n-grams. Differences are paired: of the same draws of prompts.

Learning is timed in seconds of a CPU core, which other programs change little; decisions, one after the other, by the clock.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from facts import circumstances, write
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from nomoat import responder
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine.recorded import read_recorded
from nomoat.responder import Responder
from nomoat.route import frontier, learned
from nomoat.route.frontier import Estimate, Frontier
from nomoat.route.outcomes import Pair, Pairs

LOCAL, CLOUD = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
STRENGTHS = (0.1, 1.0, 10.0)
TEXTS_AT_ONCE = 32
DECISIONS = 200
SEED = 0
TODAY = "n-grams, as learned"
OTHERS = {"n-grams, C chosen": (True, False), "embeddings, C chosen": (False, True), "both, C chosen": (True, True)}  # words, states

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
# A router in the making: from what is learned from (indices, labels) to the chances of whatever it is given (indices).
Learner = Callable[[Indices, npt.NDArray[np.bool_]], Callable[[Indices], FloatArray]]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Prompts of one suite with both models' scores; `embeddings` [N, D], if they were made, and what that and one of them took."""

    name: str
    pairs: Pairs
    embeddings: FloatArray | None = None
    embedding_cpu_seconds: float = 0.0
    embedding_ms: float = 0.0

    @property
    def texts(self) -> list[str]:
        return [pair.prompt for pair in self.pairs.pairs]

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        return np.array([pair.local_as_good for pair in self.pairs.pairs])

    @property
    def scores(self) -> tuple[FloatArray, FloatArray]:
        """The local model's, the cloud's."""
        both = np.array([(pair.local_score, pair.cloud_score) for pair in self.pairs.pairs])
        return both[:, 0], both[:, 1]


def read(name: str, sample: int | None = None) -> Data:
    """A recorded suite, or a sample of its rows."""
    rows = read_recorded(pull_dataset(name))
    if sample is not None and sample < len(rows):
        rows = random.Random(SEED).sample(rows, sample)
    pairs = tuple(Pair(prompt=row.question, local_score=row.scores[LOCAL], cloud_score=row.scores[CLOUD]) for row in rows)
    return Data(name=name, pairs=Pairs(local=LOCAL, cloud=CLOUD, local_digest="recorded", pairs=pairs))


def embedded(data: Data, model: Responder) -> Data:
    started, parts = time.process_time(), []
    for at in range(0, len(data.texts), TEXTS_AT_ONCE):
        parts.append(model.embed(data.texts[at : at + TEXTS_AT_ONCE]))
        print(f"\r{data.name}: {at:,} of {len(data.texts):,} embedded", end="", file=sys.stderr, flush=True)
    seconds = time.process_time() - started
    print(file=sys.stderr)
    return replace(
        data,
        embeddings=np.concatenate(parts).astype(np.float64),
        embedding_cpu_seconds=seconds,
        embedding_ms=milliseconds(lambda text: model.embed([text]), data.texts),
    )


# ---------------------------------------------------------------- routers
def chosen(matrix: Any, at: Indices, good: npt.NDArray[np.bool_], groups: Indices) -> LogisticRegression:
    """Logistic regression over the rows `at`, as strong as a fifth of them likes it best."""
    seen, held_out = next(iter(learned.folds(good, groups[at])))

    def loss(strength: float) -> float:
        tried = LogisticRegression(C=strength, max_iter=1000).fit(matrix[at[seen]], good[seen])
        return float(log_loss(good[held_out], tried.predict_proba(matrix[at[held_out]])[:, 1]))

    return LogisticRegression(C=min(STRENGTHS, key=loss), max_iter=1000).fit(matrix[at], good)


def learner(data: Data, groups: Indices, *, words: bool, states: bool) -> Learner:
    """N-grams, embeddings, or both side by side."""

    def learn(at: Indices, good: npt.NDArray[np.bool_]) -> Callable[[Indices], FloatArray]:
        blocks: list[Any] = []
        if words:
            vectorizer = TfidfVectorizer(
                analyzer="char_wb", ngram_range=learned.NGRAMS, sublinear_tf=True, max_features=learned.MAX_NGRAMS
            ).fit([data.texts[one] for one in at])
            blocks.append(vectorizer.transform(data.texts))
        if states:
            assert data.embeddings is not None
            mean_D, spread_D = data.embeddings[at].mean(axis=0), data.embeddings[at].std(axis=0) + 1e-12
            blocks.append((data.embeddings - mean_D) / spread_D / np.sqrt(len(mean_D)))
        matrix = sparse.hstack([sparse.csr_array(block) for block in blocks], format="csr") if len(blocks) > 1 else blocks[0]
        model = chosen(matrix, at, good, groups)
        return lambda asked: np.asarray(model.predict_proba(matrix[asked])[:, 1])

    return learn


def unseen(learn: Learner, good: npt.NDArray[np.bool_], groups: Indices) -> FloatArray:
    """As `learned.unseen_chances`, over the same folds."""
    chances = np.empty(len(good))
    for at, asked in learned.folds(good, groups):
        chances[asked] = learn(at, good[at])(asked)
    return chances


# ---------------------------------------------------------------- figures
def difference(one: FloatArray, other: FloatArray, data: Data, groups: Indices) -> dict[str, Any]:
    """By how much `one`'s AUC and APGR are higher than `other`'s."""
    gains = data.scores[1] - data.scores[0]

    def both(weights_BN: FloatArray) -> FloatArray:
        auc = frontier.aucs(one, data.good, weights_BN) - frontier.aucs(other, data.good, weights_BN)
        apgr = frontier.curves(one, gains, weights_BN).apgrs() - frontier.curves(other, gains, weights_BN).apgrs()
        return np.stack([auc, apgr])

    observed = both(np.ones((1, len(gains))))[:, 0]
    drawn = np.concatenate([both(weights_BN) for weights_BN in frontier.resamples(groups, seed=SEED)], axis=1)
    low, high = np.nanquantile(drawn, frontier.TAILS, axis=1)
    return {
        name: asdict(Estimate(value=float(observed[at]), low=float(low[at]), high=float(high[at])))
        for at, name in enumerate(("auc", "apgr"))
    }


def row_of(name: str, data: Data, chances: FloatArray, groups: Indices) -> dict[str, Any]:
    found = frontier.measure(chances, *data.scores, groups)
    return {
        "data": data.name,
        "n": len(data.good),
        "router": name,
        "auc": asdict(frontier.auc(chances, data.good, groups)),
        **{key: value for key, value in asdict(found).items() if key != "curve"},
    }


def best_possible(data: Data, groups: Indices) -> Frontier:
    """That of a router which knows the scores."""
    local, cloud = data.scores
    return frontier.measure((1 + local - cloud) / 2, local, cloud, groups)


# ---------------------------------------------------------------- time
def milliseconds(decide: Callable[[str], object], texts: Sequence[str]) -> float:
    """The median of single decisions."""
    seconds = []
    for text in texts[:DECISIONS]:
        started = time.perf_counter()
        decide(text)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:]))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return work(), time.process_time() - started


def as_learned(data: Data) -> dict[str, Any]:
    """What `route learn` takes, cross-validation and intervals included, and what one of its decisions takes."""
    router, seconds = timed(lambda: learned.learn(data.pairs, threshold=0.5))
    return {"learn_cpu_seconds": seconds, "decision_ms": milliseconds(router.score, data.texts)}


def measured(data: Data) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row for each router, and the differences of those over embeddings to those over n-grams."""
    groups, good = learned.groups_of(data.pairs.pairs), data.good
    chances = {TODAY: learned.unseen_chances(data.texts, good, groups)}
    rows = [row_of(TODAY, data, chances[TODAY], groups) | as_learned(data)]
    print(render(rows[-1]), flush=True)
    for name, (words, states) in OTHERS.items() if data.embeddings is not None else ():
        learn = learner(data, groups, words=words, states=states)
        chances[name] = unseen(learn, good, groups)
        _, seconds = timed(lambda learn=learn: learn(np.arange(len(good)), good))  # type: ignore[misc]
        rows.append(row_of(name, data, chances[name], groups) | {"fit_cpu_seconds": seconds})
        if states:
            rows[-1] |= {"embedding_cpu_seconds": data.embedding_cpu_seconds, "decision_ms": data.embedding_ms}
        print(render(rows[-1]), flush=True)
    pairs = [(one, other) for at, one in enumerate(chances) for other in list(chances)[: min(at, 2)]]
    differences = [
        {"data": data.name, "n": len(good), "router": one, "over": other} | difference(chances[one], chances[other], data, groups)
        for one, other in pairs
    ]
    return rows, differences


def shown(figure: dict[str, float] | None, *, percent: bool = False, sign: str = "") -> str:
    if figure is None:
        return "-"
    value, low, high = (100 * one if percent else one for one in figure.values())
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]" if percent else f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def render(row: dict[str, Any]) -> str:
    cpts = [shown(row[name], percent=True) for name in ("cpt50", "cpt80")]
    cells = [row["data"], f"{row['n']:,}", row["router"], shown(row["auc"]), shown(row["apgr"]), *cpts]
    learning = (
        f"{row['fit_cpu_seconds']:.0f}, one fit" if "fit_cpu_seconds" in row else f"{row['learn_cpu_seconds']:.0f}, all of `learn`"
    )
    if "embedding_cpu_seconds" in row:
        learning += f", and {row['embedding_cpu_seconds']:.0f} to embed"
    cells += [learning, f"{row['decision_ms']:.1f}" if "decision_ms" in row else "-"]
    return f"| {' | '.join(cells)} |"


def render_difference(row: dict[str, Any]) -> str:
    cells = [row["data"], f"{row['n']:,}", row["router"], row["over"], shown(row["auc"], sign="+"), shown(row["apgr"], sign="+")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--mmlu", type=int, default=3000, help="prompts of MMLU that are embedded")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started = time.perf_counter()
    with responder.load(args.model) as model:  # and freed before the routers are timed: its threads wait busily
        load_seconds = time.perf_counter() - started
        suites = [embedded(data, model) for data in (read("routellm-gsm8k"), read("routellm-mmlu", args.mmlu))]
    print("| data | n | router | AUC | APGR | CPT50 | CPT80 | learning, s of a core | one decision, ms |")
    print(f"|{'---|' * 9}")
    found = [measured(data) for data in (*suites, read("routellm-mmlu"))]
    rows, differences = ([row for one in found for row in one[at]] for at in (0, 1))
    print(f"\n| data | n | router | over | AUC | APGR |\n|{'---|' * 6}")
    print("\n".join(render_difference(row) for row in differences))
    best = {}
    for name in ("routellm-gsm8k", "routellm-mmlu"):
        data = read(name)
        best[name] = asdict(best_possible(data, learned.groups_of(data.pairs.pairs)))
        print(f"\n{name}: the best APGR possible, of a router that knows the scores, is {shown(best[name]['apgr'])}")
    kept = {"model": args.model, "load_seconds": load_seconds, "seed": SEED}
    write(args.json, {**circumstances(), **kept, "rows": rows, "differences": differences, "best possible": best})


if __name__ == "__main__":
    main()
