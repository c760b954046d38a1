"""Everything before the training: the file read, put into tokens and looked at. No PyTorch here: a mistake is told at once."""

from __future__ import annotations

import functools
import hashlib
import json
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nomoat import __version__, bounds, labelling, references
from nomoat.catalog import datasets, licences, pull, sidecar
from nomoat.catalog.licences import ChainVerdict
from nomoat.catalog.sidecar import Sidecar
from nomoat.conversations import Lesson
from nomoat.engine import arch as architectures
from nomoat.engine import importer, templates
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.source import ModelSource, open_source
from nomoat.engine.templates import Template
from nomoat.engine.tokenizer import TEXTS_AT_ONCE, Tokenizer, name_of
from nomoat.errors import DataError, UnsupportedError, UsageError
from nomoat.hardware import Detected
from nomoat.languages import language_shares
from nomoat.progress import Progress
from nomoat.records import Parent
from nomoat.rows import Given, Source, sha256_of, source
from nomoat.tune import adapter, questions
from nomoat.tune import samples as encoding
from nomoat.tune.adapter import Start
from nomoat.tune.data import Data, is_table, read
from nomoat.tune.prompts import AlikePrompts
from nomoat.tune.samples import Sample
from nomoat.words import apart

SCRIPTS = {"HANGUL": "Korean", "LATIN": "Latin", "CJK": "Chinese characters", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}
RANK = 16
WHOLE = ("rank", "layers", "batch", "seed")
FEW_LESSONS, MANY_LESSONS = 500, 5000
VALIDATION_PART, MAX_VALIDATION_LESSONS = 0.1, 200
LESSONS_AT_ONCE = 100  # that are cut into tokens together, and told of: more take as long each
WIDTH_OF_FULL_RATE, FULL_RATE = 576, 2e-3  # SmolLM2-135M's, where it was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. None is chosen from the data's and the model's size: see `chosen`.

    `layers`: so many of the upper layers learn. `minutes` bounds the time of training itself and wins over `epochs` when it is
    shorter. `batch`: lessons a step, at most. `noise`: NEFTune's alpha, for embeddings, so all layers have to learn.
    """

    rank: int | None = None
    layers: int | None = None
    learning_rate: float | None = None
    epochs: float | None = None
    batch: int | None = None
    minutes: float | None = None
    noise: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is None and name != "seed":
                continue
            plain = (bounds.whole if name in WHOLE else bounds.number)(name, value)
            object.__setattr__(self, name, plain)
            if name != "seed" and not 0 < plain < float("inf"):
                raise UsageError(f"{name} is {value}", hint="give a number above 0")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}", hint="give a whole number from 0 up to 2**63")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Settings without gaps."""

    rank: int
    layers: int
    learning_rate: float
    epochs: float
    batch: int
    minutes: float | None
    noise: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the data is like. Lengths of rows in tokens: median, 95th percentile, longest.

    Counted are the lessons that are learned or held out: neither those left out as `too_long` nor those `dropped`.
    `num_rows`: what is computed by itself; of a conversation that is not one row, some answers are (see `samples.encode`).
    `duplicates`: lessons that ask what an earlier one asks; `contradictions`: those of them that learn another label or answer.
    `shared_with_test`: the places of lessons that learn an answer to what the test file asks; `dropped` of them were left out.
    `shared_with_validation`: of those that go on from the end of one of the validation file, or that one of it goes on from, whichever
    of the answers are learned; all were left out.
    `validation_shared_with_test`: the places of lessons of the validation file that answer what the test asks, left out as well: the
    best look is chosen by what is held out. `scripts`: part of the letters of a table's texts, or of all that is said in
    conversations, the largest first. `languages`: roughly, part of the texts, or of what users and answers say, see `language_shares`.

    `question`: what a table's texts are asked with, `{text}` in their place; whoever asks the tuned model has to ask so.

    It goes into the adapter's folder, which people publish: no text of the data may stand here. So `labels` is empty where there are
    more than a question can name: they are free answers. Those that are asked for and that no lesson has stand there with 0.
    """

    format: str
    num_lessons: int
    num_tokens: int
    median_tokens: int
    p95_tokens: int
    longest_tokens: int
    too_long: tuple[str, ...]
    labels: dict[str, int]
    duplicates: int
    contradictions: int
    shared_with_test: tuple[str, ...]
    shared_with_validation: tuple[str, ...]
    dropped: int
    scripts: dict[str, float]
    languages: dict[str, float]
    num_rows: int
    validation_shared_with_test: tuple[str, ...] = ()
    question: str | None = None


@dataclass(frozen=True, kw_only=True)  # without slots: `split` is kept
class Prepared:
    """A training that could start now. `options` are the words the data was read with; they enter the provenance.

    `shared_texts`: what the test file asks, too, as `place: text`, to be shown to the user and nobody else.
    `validation`: the lessons of a file of their own that are held out; none where a part of `samples` is to be.
    `others`: what was given as `test` and `validation`. `notes` say what was not read of the data and of these.
    `start`: the adapter it goes on from.
    `template`: the named chat template the lessons are put into and BASE+NAME will answer with, where it is not the file's own.
    `sidecar` stands beside data that a model wrote: its teachers enter the licence chain, and so do `data_terms`.
    `has_stated_terms`: the user said which terms the data has.
    """

    base: str
    weights: Path
    start: Start | None
    file: ModelSource
    arch: Architecture
    sizes: Dimensions
    data: Data
    others: dict[str, Source]
    notes: tuple[str, ...]
    samples: list[Sample]
    validation: list[Sample]
    survey: Survey
    shared_texts: tuple[str, ...]
    settings: Chosen
    options: dict[str, Any]
    template: Detected[str] | None
    brought: Template | None
    sidecar: Sidecar | None
    data_terms: tuple[Parent, ...]
    has_stated_terms: bool

    @property
    def teachers(self) -> tuple[Parent, ...]:
        """Who wrote the data, and what they were shown, where a model wrote it."""
        return self.sidecar.parents if self.sidecar else ()

    @property
    def licence(self) -> ChainVerdict:
        """What the result may be used for. Raises BadFileError."""
        return adapter.licence_chain(self.weights, self.data_terms, self.teachers, self.start)

    @functools.cached_property
    def split(self) -> tuple[list[Sample], list[Sample]]:
        """What is learned, and what is held out: a file's lessons, or some of the data. Of these, an answer to what is learned
        elsewhere, as where conversations begin alike, is read alone.
        """
        learned, held_out = (self.samples, self.validation) if self.validation else _drawn(self)
        taught = {question for sample in learned for question in sample.asked}
        measured = [sample.without(taught) for sample in held_out]
        return learned, [sample for sample in measured if sample.answers]

    @property
    def all_samples(self) -> list[Sample]:
        """With those of the validation file."""
        return [*self.samples, *self.validation]

    def lessons_sha256(self) -> str:
        """Of the very tokens, which of them are learned, and what is held out: files, arguments and weights do not tell a template's
        date, say."""
        learned, held_out = self.split
        found = hashlib.sha256()
        for sample in (*learned, *held_out):
            about = (sample.lesson, len(sample), sample.answers, len(held_out))
            found.update(json.dumps(about).encode() + np.asarray(sample.tokens, np.int64).tobytes())
        return found.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What an adapter is made from, as it is written into `provenance.json`, and compared before a training is resumed.

        People publish it: files are known by their names and digests, not by where they lie on this machine.
        """
        facts = {
            "nomoat": __version__,
            "base": self.weights.absolute().name if references.is_path(self.base) else self.base,
            "base_file": self.weights.name,
            "base_sha256": importer.sha256_of_model(self.weights),
            "data_file": self.data.path.name,
            "data_sha256": sha256_of(self.data.path),
            "data_licence": self.data_terms[0].licence,
            **{f"{which}_sha256": sha256_of(path) for which, path in self.others.items()},
            "num_lessons": len(self.data.lessons),
            adapter.LESSONS: self.lessons_sha256(),
            "optimizer": "SOAP",
            "start": self.start.facts() if self.start else None,
            "settings": asdict(self.settings),
            "task": self.options,
        }
        # As JSON has it: a name that is a text of numpy's PyTorch writes into a checkpoint, and does not read.
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain


def prepare(
    base: str | Path, data_path: Given, *, input_column: str | None = None, label_column: str | None = None,
    instruction: str | None = None, test: Given | None = None, keep_shared: bool = False,
    validation: Given | None = None, drop_long: bool = False, template: str | None = None, data_licence: str | None = None,
    settings: Settings | None = None, progress: Progress = lambda _done, _total: None,
) -> Prepared:  # fmt: skip
    """Read the data, a file or rows (see `rows.source`), and look at it. `progress` is told how many lessons are in tokens.

    `test`: a file, or rows, whose texts must not be learned from; those found in both are dropped.
    `base`: a model, or BASE+ADAPTER to go on from what an adapter has learned, with its instruction, rank and layers.
    `validation`: a file of lessons to hold out, in place of a part of the data; their texts are not learned from either.
    `template` names the chat template to learn with; without it the model's own is used, and Alpaca's for Alpaca's data where the
    model has none. `data_licence`: the id of the data's terms, see `data_terms`.
    Lessons over the model's context are refused, or left out with `drop_long`; none is cut.
    Raises UsageError, DataError, UnknownModelError, BadFileError, UnsupportedError.
    """
    settings, base, given_data = settings or Settings(), _named(base), source(data_path, "rows")
    if template is not None:
        templates.named(template)
    if keep_shared and test is None:
        hint = "give --test FILE, or leave out --keep-shared (in Python: `test`, `keep_shared`)"
        raise UsageError("texts shared with a test file are to be kept, and no test file is named", hint=hint)
    stated = None if data_licence is None else licences.require_known(data_licence)
    files = references.find_files(base)
    file = opened(files.weights)
    start = adapter.read_start(files.name, files.weights, files.adapter, file) if files.adapter else None
    if start:
        settings = _as_it_was(settings, start, instruction=instruction, template=template)
        if instruction is None and is_table(given_data, input_column, label_column):
            instruction = start.instruction
    how = {"input_column": input_column, "label_column": label_column, "instruction": instruction}
    beside = sidecar.find(given_data) if isinstance(given_data, Path) else None
    data = _read(given_data, start, beside, **how)
    terms = data_terms(data.path, stated)  # only now: that it is a file, and one that can be read, is said by whoever reads it
    given = (("test", test), ("validation", validation))
    others = {which: _read_other(which, one, data, **how) for which, one in given if one is not None}
    shared = {which: _shared(data, theirs, with_beginnings=which == "validation") for which, theirs in others.items()}
    dropped = {} if keep_shared else shared.get("test", {})
    not_learned = dropped | shared.get("validation", {})
    data = _without(data, not_learned)
    tokenizer = file.read_tokenizer()
    named, brought = _template(files, template, tokenizer.chat_template, data)
    if used := named.value if named else brought:
        tokenizer.use_template(used)
    arch, sizes = architectures.of(file), importer.read_sizes(file)
    if settings.rank and settings.rank > sizes.width:
        raise UsageError(f"rank is {settings.rank:,}, and the model is {sizes.width:,} wide", hint="16 is usual, and 64 is much")
    samples, too_long = _encoded(data, tokenizer, sizes, drop_long, progress)
    data = _without(data, too_long)
    held_out, told = list[Sample](), {f"shared_with_{which}": tuple(shared.get(which, {})) for which in ("test", "validation")}
    if theirs := others.get("validation"):
        if instruction is None:  # else nothing names them, and answers may be any
            _require_known_labels(theirs, data.labels)
        in_test = tuple(_shared(theirs, others["test"])) if "test" in others and not keep_shared else ()
        held_out, left_out = _encoded(_without(theirs, in_test), tokenizer, sizes, drop_long)
        too_long += tuple(f"{where} of {theirs.path.name}" for where in left_out)
        told["validation_shared_with_test"] = in_test
    survey = _survey(data, samples, are_named=instruction is None, too_long=too_long, dropped=len(dropped), **told)
    return Prepared(
        base=files.name, weights=files.weights, start=start, file=file, arch=arch, sizes=sizes, data=data, samples=samples,
        validation=held_out, survey=survey, shared_texts=tuple(shared.get("test", {}).values()),
        others={which: theirs.path for which, theirs in others.items()},
        notes=(*data.notes, *(f"{theirs.path.name}: {note}" for theirs in others.values() for note in theirs.notes)),
        settings=chosen(settings, num_lessons=len(data.lessons), width=sizes.width, layers=sizes.layers, can_add_layers=not start),
        options={
            **how, "keep_shared": keep_shared, "template": named.value if named else None,
            **{which: others[which].path.name if which in others else None for which, _ in given},
        },
        template=named, brought=brought, sidecar=beside, data_terms=terms, has_stated_terms=data_licence is not None,
    )  # fmt: skip


def data_terms(data: Source, stated: str | None) -> tuple[Parent, ...]:
    """The terms of the data: the catalogue's for a file of its data sets, known by its sha256 under any name, and those that the user
    `stated`; the user's own where there are neither.

    Raises UsageError for `own` where the data is the catalogue's. Not covered: a part of such a file, or one that was changed.
    """
    known = datasets.holding(sha256_of(data))
    if known is None:
        return (licences.stated_data(data.name, stated or licences.OWN),)
    if stated == licences.OWN:
        raise UsageError(
            f"`{data.name}` is a file of the data set `{known.name}`, which has terms of others: "
            f"{licences.licence(known.licence).title}",
            hint="leave out --data-licence (in Python: `data_licence`): these terms are known",
        )
    theirs = replace(known.parent, name=f"{data.name} ({known.name})")
    return (theirs,) if stated in (None, known.licence) else (theirs, licences.stated_data(data.name, stated))


def _template(
    files: references.LocalFiles, asked: str | None, own: str | None, data: Data
) -> tuple[Detected[str] | None, Template | None]:  # fmt: skip
    """The name of the chat template to learn with, or the one that the adapter brought; neither where the model's own is used."""
    named = files.template(asked=asked, own=own)
    brought = None if named else files.brought
    if named is None and brought is None and own is None and data.format == "Alpaca instructions":
        return Detected("alpaca", "the data is Alpaca's, and the model has none"), None
    return named, brought


def _drawn(prepared: Prepared) -> tuple[list[Sample], list[Sample]]:
    """What is left to learn of the data, and what is held out, by its text: what stands there several times is on one side, as is a
    conversation with what it goes on from, and whoever goes on from an adapter with the same texts, in whatever order, holds the same
    out, and mostly so where conversations have gone on. Of each label a lesson is left to learn, and what several conversations go on
    from.
    """
    texts = defaultdict[bytes, list[Sample]](list)
    for sample in prepared.samples:
        texts[sample.digest].append(sample)
    label_of = {lesson.where: lesson.label for lesson in prepared.data.lessons} if prepared.survey.labels else {}
    wanted, left = most_held_out(prepared), Counter(label_of.values())
    shared = {sample.digest for sample in prepared.samples if sample.is_shared}
    held_out: dict[bytes, list[Sample]] = {}
    for digest in sorted(texts.keys() - shared):
        lessons = {sample.lesson for sample in texts[digest]}
        labels = Counter(label_of[lesson] for lesson in lessons if lesson in label_of)
        if len(lessons) <= wanted and all(count < left[label] for label, count in labels.items()):
            held_out[digest] = texts[digest]
            wanted -= len(lessons)
            left -= labels
    learned = [sample for sample in prepared.samples if sample.digest not in held_out]
    return learned, [sample for same in held_out.values() for sample in same]


def most_held_out(prepared: Prepared) -> int:
    """So many lessons of the data are held out, or a few less if some have the same text or begin alike."""
    return min(MAX_VALIDATION_LESSONS, int(len(prepared.data.lessons) * VALIDATION_PART))


def _named(base: str | Path) -> str:
    ref = references.named(base)
    if not references.names_weights(ref):
        raise UsageError(f"`{ref}` has no weights on this disk to tune", hint="name a model that has: `nomoat models` lists them")
    return ref


def _as_it_was(settings: Settings, start: Start, **words: str | None) -> Settings:
    """With the rank and the layers of the adapter to go on from. Raises UsageError where others are asked for, or other `words`."""
    asked = {"rank": settings.rank, "layers": settings.layers, **words}
    for name, there in start.form.items():
        if asked[name] not in (None, there) and not (name == "instruction" and _ask_the_same(asked[name], there)):
            has = "none of its own" if there is None else there
            hint = f"leave out --{name} (in Python: `{name}`), or tune the base"
            raise UsageError(f"{name} is {asked[name]}, and the adapter `{start.name}` has {has}", hint=hint)
    return replace(settings, rank=start.rank, layers=start.layers)


def _ask_the_same(instruction: Any, there: Any) -> bool:
    """One question has several spellings."""
    return there is not None and labelling.kept_question((), instruction) == labelling.kept_question((), there)


def _read_other(which: str, given: Given, data: Data, **how: Any) -> Data:
    """What is given as `which`, with the labels of the data. What is held out is answered as what is learned."""
    return read(source(given, f"{which} rows"), labels=data.labels or None, is_learned=which == "validation", **how)


def _read(path: Source, start: Start | None, beside: Sidecar | None, **how: Any) -> Data:
    """The data, with the labels its adapter knows already named beside its own, and those that its teacher had to choose from."""
    data = read(path, labels=start.labels if start and start.labels else None, **how)
    own = {lesson.label for lesson in data.lessons if lesson.label is not None}
    given = _labels_of(beside)
    named = {*data.labels, *own, *(given if own <= given else ())}  # else another column is learned, or labels were changed since
    return data if named == set(data.labels) else read(path, labels=sorted(named), **how)


def _labels_of(beside: Sidecar | None) -> set[str]:
    """What a teacher had to choose from where it labelled texts."""
    settings = beside.facts.get("settings") if beside else None
    labels = settings.get("labels") if isinstance(settings, dict) else None
    return {label for label in labels if isinstance(label, str)} if isinstance(labels, list) else set()


def _without(data: Data, places: Iterable[str]) -> Data:
    left_out = set(places)
    return replace(data, lessons=[lesson for lesson in data.lessons if lesson.where not in left_out])


def _require_known_labels(others: Data, labels: Sequence[str]) -> None:
    """Raises DataError for a row whose label is not among those that the question names."""
    for lesson in others.lessons:
        if lesson.label is not None and labels and lesson.label not in labels:
            raise DataError(
                f"`{others.path}`, {lesson.where}: label `{lesson.label}` is not one of {', '.join(map(apart, labels))}",
                hint="those are the labels that are learned; correct it, or leave the row out",
            )


def _shared(data: Data, others: Data, *, with_beginnings: bool = False) -> dict[str, str]:
    """The lessons that learn an answer to what is asked there last, by their place, as `where: text` up to the last such answer.

    `with_beginnings`: also those that end with what is asked there earlier; of every answer, learned or not.
    """
    theirs = {questions.last_asked(lesson) for lesson in others.lessons}
    answered = questions.answered if with_beginnings else questions.asked
    earlier = {question for lesson in others.lessons for _, question in answered(lesson)} if with_beginnings else set()
    found = dict[str, str]()
    for lesson in data.lessons:
        asked = list(answered(lesson))
        places = [at for at, question in asked if question in theirs or (question == asked[-1][1] and question in earlier)]
        if places:
            found[lesson.where] = f"{lesson.where}: {text_of(lesson, places[-1])}"
    return found


def chosen(settings: Settings, *, num_lessons: int, width: int, layers: int, can_add_layers: bool) -> Chosen:
    """The gaps filled: few lessons are seen more often and in smaller batches, wider models learn at a lower rate.

    The upper half of the layers learns: in the same time it gets further than all do in fewer epochs (docs/tried/tuning-accuracy.md).

    Rules of thumb from runs on SmolLM2-135M (docs/tune.md), not optima. Raises UsageError for more layers than there are, and for
    noise where not all learn.
    """
    few, many = num_lessons < FEW_LESSONS, num_lessons >= MANY_LESSONS
    epochs = settings.epochs or (6.0 if few else 3.0 if many else 4.0)
    batch = settings.batch or min(16, max(4, num_lessons // 50))
    rate = settings.learning_rate or float(f"{FULL_RATE * min(1.0, (WIDTH_OF_FULL_RATE / width) ** 0.5):.2g}")
    learning = settings.layers or (layers + 1) // 2
    if learning > layers:
        raise UsageError(f"layers is {learning}, and the model has {layers}", hint=f"give {layers} at most")
    if settings.noise and learning < layers:
        why = f"it needs all {layers} layers to learn; the upper {learning} do"
        raise UsageError(
            f"noise is {settings.noise:g}, and {why}",
            hint=f"add --layers {layers} (in Python: `layers`)" if can_add_layers else "tune the base",
        )
    return Chosen(
        rank=settings.rank or RANK, layers=learning, learning_rate=rate, epochs=epochs, batch=batch, minutes=settings.minutes,
        noise=settings.noise or 0.0, seed=settings.seed,
    )  # fmt: skip


def opened(weights: Path) -> ModelSource:
    """The model's weights, if they can be learned beside. Raises BadFileError, UnsupportedError."""
    pull.require_as_published(weights, importer.remembered_sha256)
    source = open_source(weights)
    if isinstance(source, ForeignFolder):
        kind, known = source.metadata["general.architecture"], architectures.known()
        raise UnsupportedError(
            f"`{weights}` is of the architecture `{kind}`, which runs here but cannot be tuned",
            hint=f"known architectures can: {', '.join(sorted(name for name, arch in known.items() if not arch.has_experts))}",
        )
    if architectures.of(source).has_experts:
        raise UnsupportedError(
            f"`{weights}` is a mixture of experts, which runs here but cannot be tuned",
            hint="tune a model without experts: `nomoat models` lists some",
        )
    if importer.read_sizes(source).norms_last:
        raise UnsupportedError(
            f"`{weights}` has its norms after its layers, as OPT-350M: that cannot be tuned yet",
            hint="tune a model that has them before, as OPT-125M or OPT-1.3B",
        )
    return source


def _encoded(
    data: Data, tokenizer: Tokenizer, sizes: Dimensions, drop_long: bool, progress: Progress = lambda _done, _total: None
) -> tuple[list[Sample], tuple[str, ...]]:  # fmt: skip
    """The samples that fit, and the places of the lessons that do not."""
    context_tokens = sizes.context_tokens
    samples, too_long = list[Sample](), list[tuple[str, str]]()
    for lesson, made in _in_tokens(data, tokenizer, context_tokens, progress):
        if (largest := max((max(sample.tokens) for sample in made), default=0)) >= sizes.vocabulary:
            named = name_of(tokenizer.backend, largest)
            raise DataError(f"`{data.path}`, {lesson.where}: the model's weights do not have the token `{named}`", hint="leave it out")
        longest = max(map(len, made), default=None)
        if longest is None or longest > context_tokens:
            too_long.append((lesson.where, f"more than {context_tokens:,}" if longest is None else f"{longest:,}"))
        else:
            for sample in made:
                tokens = array("i", sample.tokens)  # four bytes a token where a list takes some 36: a file may have many millions
                samples.append(replace(sample, tokens=tokens, lesson=lesson.where, digest=made[-1].asked[-1]))
    if too_long and not drop_long:
        where, length = too_long[0]
        others = f" ({len(too_long) - 1:,} more do not fit)" if len(too_long) > 1 else ""
        raise DataError(
            f"`{data.path}`, {where}: {length} tokens, and the model's context is {context_tokens:,}{others}",
            hint="shorten them, or leave them out with --drop-long (in Python: `drop_long`); nomoat cuts nothing",
        )
    if not samples:
        hint = "every text is too long, or stands in the file of --test or --validation (in Python: `test`, `validation`)"
        raise DataError(f"`{data.path}`: nothing of it is left", hint=hint)
    places = tuple(where for where, _ in too_long)
    first, shared = questions.chains(_without(data, places).lessons)
    samples = [replace(one, digest=first.get(one.digest, one.digest), is_shared=one.digest in shared) for one in samples]
    return samples, places


def _in_tokens(
    data: Data, tokenizer: Tokenizer, context_tokens: int, progress: Progress
) -> Iterator[tuple[Lesson, list[Sample]]]:  # fmt: skip
    """Each lesson with its samples, see `samples.encode`, cut together with others. Raises DataError for the first that is refused."""
    alike, done = AlikePrompts(tokenizer), 0

    def by_itself(lesson: Lesson) -> list[Sample]:
        try:
            return encoding.encode(lesson, tokenizer, context_tokens, alike)
        except UnsupportedError as exc:
            if tokenizer.chat_template is None:
                raise
            raise DataError(
                f"`{data.path}`, {lesson.where}: {exc.message}",
                hint="change the conversation, or the --template (in Python: `template`)",
            ) from exc

    for lessons in _cut_together(data.lessons):
        try:
            made: Iterable[list[Sample]] = encoding.encode_many(lessons, tokenizer, context_tokens, alike)
        except UnsupportedError:  # which of them is refused is seen where each is cut by itself
            made = map(by_itself, lessons)
        yield from zip(lessons, made, strict=True)
        done += len(lessons)
        if done < len(data.lessons):
            progress(done, len(data.lessons))


def _cut_together(lessons: Iterable[Lesson]) -> Iterator[list[Lesson]]:
    """All of them in their order, LESSONS_AT_ONCE at most, and of long ones fewer: what is not yet in `array`s takes much memory."""
    together, letters = list[Lesson](), 0
    for lesson in lessons:
        together.append(lesson)
        letters += len(lesson.text) if lesson.text is not None else sum(len(turn.content) for turn in lesson.turns)
        if len(together) == LESSONS_AT_ONCE or letters >= TEXTS_AT_ONCE:
            yield together
            together, letters = [], 0
    if together:
        yield together


def _survey(data: Data, samples: Sequence[Sample], *, are_named: bool, **rest: Any) -> Survey:
    """`are_named`: the question names the labels; otherwise they may be answers of any kind, which differ from row to row."""
    lengths = np.array([len(sample) for sample in samples])
    is_other = [other for _, _, other in repetitions(data.lessons)]
    labels = Counter(lesson.label for lesson in data.lessons if lesson.label is not None)
    are_labels = len(labels) <= labelling.MAX_LABELS and (are_named or 2 * len(labels) <= labels.total())
    labels.update(dict.fromkeys(data.labels, 0))
    return Survey(
        format=data.format,
        num_lessons=len(data.lessons),
        num_rows=len(samples),
        num_tokens=int(lengths.sum()),
        median_tokens=int(np.median(lengths)),
        p95_tokens=int(np.percentile(lengths, 95)),
        longest_tokens=int(lengths.max()),
        labels=dict(labels.most_common()) if are_labels else {},
        duplicates=len(is_other),
        contradictions=sum(is_other),
        scripts=_scripts(data.lessons),
        languages=language_shares(_said(data.lessons)),
        question=data.question,
        **rest,
    )


def repetitions(lessons: Iterable[Lesson]) -> Iterator[tuple[Lesson, Lesson, bool]]:
    """Each lesson that asks what an earlier one asks, behind the first that does, and whether it learns another label or answer."""
    learned = dict[bytes, tuple[Lesson, dict[bytes, str]]]()
    for lesson in lessons:
        answers = {question: lesson.messages[at].content for at, question in questions.asked(lesson)}
        last = next(reversed(answers))
        first, earlier = learned.get(last, (lesson, {}))
        if earlier:
            yield first, lesson, any(earlier.get(question, answer) != answer for question, answer in answers.items())
        learned[last] = first, answers | earlier


def text_of(lesson: Lesson, end: int) -> str:
    """A row's text, or what the user says before the turn `end`."""
    return lesson.text if lesson.text is not None else "\n".join(m.content for m in lesson.messages[:end] if m.role == "user")


def _said(lessons: Sequence[Lesson]) -> list[str]:
    """Each row's text, or each turn but the system's, which many conversations share."""
    rows = [lesson.text for lesson in lessons if lesson.text is not None]
    return rows or [turn.content for lesson in lessons for turn in lesson.turns if turn.role != "system"]


def _scripts(lessons: Sequence[Lesson]) -> dict[str, float]:
    characters, scripts = Counter[str](), Counter[str]()
    for lesson in lessons:
        characters.update(lesson.text if lesson.text is not None else "".join(turn.content for turn in lesson.turns))
    for letter, count in characters.items():
        if not letter.isalpha():
            continue
        script = unicodedata.name(letter, "?").split()[0]
        scripts[SCRIPTS.get(script, script.capitalize())] += count
    total = scripts.total()
    return {script: round(count / total, 3) for script, count in scripts.most_common(4)}
