"""The learned router: the chance that the local model answers a prompt as well as the cloud, by the prompt's text, or by how sure the
local model is of its answer (see `cascade`).

Logistic regression over character n-grams of the prompt, or over the answer's log-odds, learned from the user's own duels, here: no
prompt leaves the machine to be routed, and no language needs a tokenizer. A router that cannot be told from chance on prompts it has
not seen is not kept: neither one whose AUC may be that of chance, nor one near to it that others equal which learned from the same
prompts with their scores shuffled.

Kept in NOMOAT_HOME's `router` folder, one at a time: `router.json` (words and figures) and `weights.npz` (numbers; nothing in
either can run code). The n-grams are fragments of the prompts it learned from, each of two different ones at least: what stands in one
prompt alone, such as a name or a number, is not kept.

What this does not cover: prompts unlike those of the duels; a router knows nothing of them and does not say so.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nomoat import config, paths, whole_files
from nomoat.errors import BadFileError, DataError
from nomoat.joined import joined
from nomoat.progress import Progress
from nomoat.route.frontier import Frontier, auc, aucs, frontier_from, measure
from nomoat.route.outcomes import Pair, Pairs
from nomoat.words import counted

VERSION = 4  # change it when what is kept, or may be kept, changes
MIN_PROMPTS = 40
MIN_PER_SIDE = 10
FOLDS = 5
NUM_SHUFFLES = 39  # none of which may do as well: one in 40 does where there is nothing to learn
CLEAR = 3.0  # half-widths of its interval that an AUC is above chance, from where on there is nothing to ask
NGRAMS = (2, 4)
MAX_NGRAMS = 20_000
MIN_PROMPTS_OF_NGRAM = 2  # different ones
LEARN_AGAIN = "learn it again with `nomoat route learn`, or remove that folder"
THEN = "until then the policy alone decides"

FloatArray = npt.NDArray[np.float64]
By = Literal["prompt", "answer"]
Shown = Sequence[str] | FloatArray  # of each prompt: its text, or how sure the local model is of its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a router was worth on prompts it had not seen (cross-validated; equal prompts, and those of one group, kept together).

    `auc`: the chance that of two prompts, one of each side, it ranks the one the local model is good at higher; 0.5 is chance.
    The scores are means over the prompts: routed at `threshold`, all local, all cloud. `frontier` says the same of other thresholds.
    """

    num_prompts: int
    num_local_as_good: int
    auc: float
    auc_low: float
    auc_high: float
    threshold: float
    share_local: float
    routed_score: float
    local_score: float
    cloud_score: float
    frontier: Frontier


@dataclass(slots=True, kw_only=True)
class LearnedRouter:
    """See the module. By the prompt, `idf` and `weights` have one number for each n-gram of `vocabulary`; by the answer there is one
    weight, of its log-odds, and neither vocabulary nor idf."""

    by: By
    local: str
    cloud: str
    local_digest: str
    suites: tuple[str, ...]
    figures: Figures
    vocabulary: list[str] = field(repr=False)
    idf: FloatArray = field(repr=False)
    weights: FloatArray = field(repr=False)
    bias: float
    _vectorizer: Any = field(default=None, repr=False)

    def score_of(self, sure: float) -> float:
        """The chance, from 0 to 1, that an answer the local model is so sure of (`cascade.sureness`) is as good as the cloud's."""
        return _chance(sure * float(self.weights[0]) + self.bias)

    def score(self, text: str) -> float:
        """The chance, from 0 to 1, that the local model answers this as well as the cloud. Of a router that goes by prompts."""
        if self._vectorizer is None:
            vectorizer = _vectorizer(vocabulary=self.vocabulary)
            vectorizer.idf_ = self.idf
            self._vectorizer = vectorizer  # whole before another thread sees it
        return _chance(float((self._vectorizer.transform([text]) @ self.weights)[0]) + self.bias)


def learn(
    found: Pairs, *, sure: Sequence[float] | None = None, suites: tuple[str, ...] = (), threshold: float,
    progress: Progress = lambda _done, _total: None,
) -> LearnedRouter:  # fmt: skip
    """A router for two models, by the prompts, or by `sure`: for each pair, how sure the local model is of its answer. `threshold` is
    the policy's, for the figures. `progress` is told how often something was learned, of how often: once for each fold, and once from
    all; where it is not clear that anything was, for each fold of each shuffle besides.

    Raises DataError for too few prompts, for models of which one is nearly always as good, and for a router no better than chance.
    Not covered: whether the local model would still give these answers; see `outcomes.require_as_now`.
    """
    good = np.array([pair.local_as_good for pair in found.pairs])
    shown: Shown = [pair.prompt for pair in found.pairs] if sure is None else np.array(sure, np.float64)
    groups = groups_of(found.pairs)
    _require_enough(found, good, groups)
    chances = unseen_chances(shown, good, groups, progress)
    figures = _figures(found, good, chances, groups, threshold)
    if figures.auc_low <= 0.5:
        raise DataError(
            f"nothing was learned: on prompts it had not seen the router is not told from chance: AUC {figures.auc:.2f} "
            f"[{figures.auc_low:.2f}, {figures.auc_high:.2f}] over {figures.num_prompts:,} prompts (chance is 0.50)",
            hint=f"duel on more questions and learn again; {THEN}",
        )
    if figures.auc - 0.5 < CLEAR * (figures.auc - figures.auc_low):
        num_as_good = sum(value >= figures.auc for value in shuffled_aucs(shown, good, groups, progress))
        if num_as_good:
            raise DataError(
                f"nothing was learned: the router's AUC of {figures.auc:.2f} on prompts it had not seen is not told from chance: "
                f"{counted(num_as_good, 'router')} of {NUM_SHUFFLES} reached as much that learned from shuffled scores",
                hint=f"duel on more questions and learn again; {THEN}",
            )
    vocabulary, idf = list[str](), np.empty(0)
    if isinstance(shown, np.ndarray):
        model = _fitted_model(shown[:, None], good)
    else:
        vectorizer = _fitted_vectorizer(shown)
        vocabulary, idf = vectorizer.get_feature_names_out().tolist(), np.asarray(vectorizer.idf_, np.float64)
        model = _fitted_model(vectorizer.transform(shown), good)
    return LearnedRouter(
        by="prompt" if sure is None else "answer",
        local=found.local,
        cloud=found.cloud,
        local_digest=found.local_digest,
        suites=suites,
        figures=figures,
        vocabulary=vocabulary,
        idf=idf,
        weights=np.asarray(model.coef_[0], np.float64),
        bias=float(model.intercept_[0]),
    )


def groups_of(pairs: Sequence[Pair]) -> npt.NDArray[np.intp]:
    """Numbers from 0, the same for equal prompts, for prompts of one group, and for all that these join."""
    return joined([[("prompt", pair.prompt), *([("group", pair.group)] if pair.group else [])] for pair in pairs])


def folds(good: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """What to learn from and what to be tried on, `FOLDS` times; a group is in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    return iter(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(groups, good, groups))


def unseen_chances(
    shown: Shown, good: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp], progress: Progress = lambda _done, _total: None
) -> FloatArray:  # fmt: skip
    """For each prompt, the chance given by a router that learned from the other folds."""
    chances = np.empty(len(shown))
    for done, (seen, unseen) in enumerate(folds(good, groups)):
        progress(done, FOLDS + 1)
        known, asked = _features(shown, seen, unseen)
        chances[unseen] = _fitted_model(known, good[seen]).predict_proba(asked)[:, 1]
    progress(FOLDS, FOLDS + 1)
    return chances


def shuffled_aucs(
    shown: Shown, good: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp], progress: Progress = lambda _done, _total: None
) -> FloatArray:  # fmt: skip
    """What `NUM_SHUFFLES` routers reach as `unseen_chances` does, where which prompt the local model is as good at is shuffled.

    Shuffled is within folds, so that each has as many of both sides as it had (where groups are of one size), and between groups, so
    that what belongs together stays as alike as it is: each gets the marks of another, repeated or cut to its size, in another order.
    A fold of a single group keeps its own, in another order. The interval of an AUC takes the chances as given, and is too narrow for
    this question: those of different folds come from nearly the same prompts, and go wrong together.
    Source: Ojala and Garriga 2010, Journal of Machine Learning Research 11, 1833-1863, test 1; why an interval over folds is too
    narrow: Bengio and Grandvalet 2004, the same 5, 1089-1105. AUCs without both sides count as 1.
    """
    rng = np.random.default_rng(0)
    parts = list(folds(good, groups))
    good_SN = np.tile(good, (NUM_SHUFFLES, 1))
    for _, unseen in parts:
        good_SN[:, unseen] = [_shuffled(good[unseen], groups[unseen], rng) for _ in range(NUM_SHUFFLES)]
    chances_SN = np.empty(good_SN.shape)
    total = FOLDS + 1 + NUM_SHUFFLES * FOLDS
    # Products of sparse matrices, which these are, let other threads run. The limit is set once: threads would undo each other's.
    with ThreadPoolExecutor(config.threads().value) as threads, _libraries().limit(limits=1, user_api="blas"):
        for fold, (seen, unseen) in enumerate(parts):
            known, asked = _features(shown, seen, unseen)
            learn = functools.partial(_chances, known, asked=asked)
            for shuffle, chances in enumerate(threads.map(learn, good_SN[:, seen])):
                progress(FOLDS + fold * NUM_SHUFFLES + shuffle, total)
                chances_SN[shuffle, unseen] = chances
    progress(total - 1, total)
    once = np.ones((1, len(good)))
    found = [aucs(chances_SN[at], good_SN[at], once)[0] for at in range(NUM_SHUFFLES)]
    return np.nan_to_num(np.array(found, np.float64), nan=1.0)


def _chance(logit: float) -> float:
    return float(0.5 + 0.5 * np.tanh(0.5 * logit))  # the logistic function, which does not overflow so: long answers are far from 0


def _chances(known: Any, good: npt.NDArray[np.bool_], *, asked: Any) -> FloatArray:
    """Of what is `asked`; 0.5 where one side is all that is known."""
    if good.all() or not good.any():
        return np.full(asked.shape[0], 0.5)
    return np.asarray(_fitted_model(known, good).predict_proba(asked)[:, 1])


def _shuffled(good: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    _, starts, sizes = np.unique(np.sort(groups), return_index=True, return_counts=True)
    order = np.argsort(groups, kind="stable")  # places, group by group
    others = rng.permutation(len(starts))
    shuffled = np.empty_like(good)
    shuffled[order[starts]] = good[order[starts[others]]]  # all there is to do for groups of one
    for at in np.flatnonzero(sizes > 1):
        place, other = (order[starts[one] : starts[one] + sizes[one]] for one in (at, others[at]))
        shuffled[place] = rng.permutation(np.resize(good[other], len(place)))
    return shuffled


def folder() -> Path:
    """Where the learned router lies."""
    return paths.home() / "router"


def save_router(router: LearnedRouter) -> Path:
    """Write it for its owner alone, replacing the one before; whole or not at all."""
    target = folder()
    facts = {
        "version": VERSION,
        "by": router.by,
        "local": router.local,
        "cloud": router.cloud,
        "local_digest": router.local_digest,
        "suites": list(router.suites),
        "figures": asdict(router.figures),
        "bias": router.bias,
        "vocabulary": router.vocabulary,
    }
    with whole_files.whole_folder(target, mode=paths.OWNER_ALONE) as part:
        (part / "router.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8", newline="\n")
        np.savez(part / "weights.npz", idf=router.idf, weights=router.weights)
    return target


def load_router() -> LearnedRouter | None:
    """The learned router, None if there is none. Raises BadFileError for a damaged one, and for one of another version of nomoat."""
    source = folder()
    if not source.exists():
        return None
    try:
        facts = json.loads((source / "router.json").read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            raise _of_other_version(source, facts["version"])
        with (source / "weights.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            idf, weights = np.asarray(arrays["idf"], np.float64), np.asarray(arrays["weights"], np.float64)
        names = [facts["local"], facts["cloud"], facts["local_digest"], *facts["suites"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a name in it is no text")
        vocabulary = [str(word) for word in facts["vocabulary"]]
        count, by = len(set(vocabulary)), facts["by"]
        fits = (idf.shape, weights.shape) == (((count,), (count,)) if by == "prompt" else ((0,), (1,)))
        if by not in get_args(By) or not fits or not np.isfinite([*idf, *weights, facts["bias"]]).all():
            raise ValueError("its parts do not fit together")
        return LearnedRouter(
            by=by,
            local=facts["local"],
            cloud=facts["cloud"],
            local_digest=facts["local_digest"],
            suites=tuple(facts["suites"]),
            figures=Figures(**{**facts["figures"], "frontier": frontier_from(facts["figures"]["frontier"])}),
            vocabulary=vocabulary,
            idf=idf,
            weights=weights,
            bias=float(facts["bias"]),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as exc:
        raise BadFileError(
            f"the learned router in `{source}` is damaged: {exc}",
            hint=LEARN_AGAIN,
        ) from exc


def _of_other_version(source: Path, version: int) -> BadFileError:
    age, first = ("an older", "") if version < VERSION else ("a newer", "update nomoat; or ")
    return BadFileError(
        f"the learned router in `{source}` is of {age} nomoat: version {version} and not {VERSION}",
        hint=f"{first}duel again with this nomoat (`nomoat duel LOCAL CLOUD -s SUITE --all`), then `nomoat route learn`; "
        "or remove that folder",
    )


def _require_enough(found: Pairs, good: npt.NDArray[np.bool_], groups: npt.NDArray[np.intp]) -> None:
    """Prompts that are equal count once: they teach no more. Those of one group do, and are no independent proof."""
    sides = {side: {pair.prompt for pair in found.pairs if pair.local_as_good == side} for side in (True, False)}
    n = len(sides[True] | sides[False])
    if n < MIN_PROMPTS:
        raise DataError(
            f"{n:,} different prompts are too few to learn from: at least {MIN_PROMPTS} are needed",
            hint=f"duel on more questions; {THEN}",
        )
    for side, prompts in sides.items():
        if len(prompts) < MIN_PER_SIDE:
            place = "cloud" if side else "local"
            raise DataError(
                f"nothing to learn: `{found.local}` is as good as `{found.cloud}` on {int(good.sum()):,} of {len(good):,} prompts",
                hint=f'the policy alone decides, and `default = "{place}"` suits these models',
            )
        count = len(set(groups[good == side]))
        if count < MIN_PER_SIDE:
            better = found.local if side else found.cloud
            raise DataError(
                f"the {len(prompts):,} prompts that `{better}` is {'as good' if side else 'better'} at are of only {count:,} groups: "
                f"at least {MIN_PER_SIDE} are needed",
                hint=f"duel on questions about more texts; {THEN}",
            )


def _vectorizer(vocabulary: list[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=NGRAMS, sublinear_tf=True, max_features=MAX_NGRAMS, min_df=MIN_PROMPTS_OF_NGRAM,
        vocabulary=vocabulary, dtype=np.float64,
    )  # fmt: skip


def _features(shown: Shown, seen: npt.NDArray[np.intp], asked: npt.NDArray[np.intp]) -> tuple[Any, Any]:
    """Of the prompts to learn from, and of those to be asked about, of which the first know nothing."""
    if isinstance(shown, np.ndarray):
        return shown[seen, None], shown[asked, None]
    vectorizer = _fitted_vectorizer([shown[at] for at in seen])
    return vectorizer.transform([shown[at] for at in seen]), vectorizer.transform([shown[at] for at in asked])


def _fitted_vectorizer(texts: Sequence[str]) -> Any:
    try:
        return _vectorizer().fit(list(dict.fromkeys(texts)))
    except ValueError as exc:
        raise DataError("nothing was learned: no two prompts have anything in common", hint=f"duel on more questions; {THEN}") from exc


def _fitted_model(seen: Any, good: npt.NDArray[np.bool_]) -> Any:
    from sklearn.linear_model import LogisticRegression

    with _libraries().limit(limits=1, user_api="blas"):  # its steps are short: more threads wait for each other for most of the time
        return LogisticRegression(C=10.0, max_iter=1000).fit(seen, good)


@functools.cache
def _libraries() -> Any:
    """What threads run in. Looked for once: that takes two thirds of the time of a fit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _figures(
    found: Pairs, good: npt.NDArray[np.bool_], chances: FloatArray, groups: npt.NDArray[np.intp], threshold: float
) -> Figures:  # fmt: skip
    ranked = auc(chances, good, groups)
    local = np.array([pair.local_score for pair in found.pairs])
    cloud = np.array([pair.cloud_score for pair in found.pairs])
    stays = chances >= threshold
    return Figures(
        num_prompts=len(good),
        num_local_as_good=int(good.sum()),
        auc=ranked.value,
        auc_low=ranked.low,
        auc_high=ranked.high,
        threshold=threshold,
        share_local=float(stays.mean()),
        routed_score=float(np.where(stays, local, cloud).mean()),
        local_score=float(local.mean()),
        cloud_score=float(cloud.mean()),
        frontier=measure(chances, local, cloud, groups),
    )
