"""What the data of a training is like, in words: said before it begins, by the command line and to `on_message`."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice

from nomoat import labelling, matching
from nomoat.catalog import licences
from nomoat.languages import shares_in_words
from nomoat.tune.adapter import Start
from nomoat.tune.prepare import Prepared, most_held_out, repetitions, text_of
from nomoat.tune.samples import Sample, count_lessons, count_texts
from nomoat.words import LONGEST_NAME, apart, counted, first_few, in_sight, is_blank, places_in_signs

MANY_LABELS = 8
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)")
NO_VALUE = re.compile(r"(?i)nan|null|none|n/a|<na>|nat|#(?:n/a|null!|div/0!|value!|ref!|name\?|num!)")
EXAMPLES_SHOWN = 3
LONGEST_SHOWN = 100  # characters of each
ONE_TEXT = "one text held out says nothing about chance"


def survey_lines(prepared: Prepared) -> Iterator[str]:
    """What the data is like, in a few lines, each of them something a user may want to mend."""
    survey, settings = prepared.survey, prepared.settings
    unit = "row" if survey.num_rows > survey.num_lessons else "lesson"
    yield (
        f"data: {survey.format}, {counted(survey.num_lessons, 'lesson')}, {counted(survey.num_tokens, 'token')}; "
        f"a {unit} has {survey.median_tokens:,} (half of them), {survey.p95_tokens:,} (95 %), at most {survey.longest_tokens:,}"
    )
    yield from (f"note: {note}" for note in prepared.notes)
    yield f"scripts: {shares_in_words(survey.scripts) or 'no letters in the texts'}"
    if languages := shares_in_words(survey.languages):
        yield f"languages (by their words, roughly): {languages}"
    if survey.labels:
        shown = [(label, count) for label, count in survey.labels.items() if count]
        rarest = f", the rarest {apart(shown[-1][0])} {shown[-1][1]:,}" if len(shown) > MANY_LABELS else ""
        yield f"labels: {first_few([f'{apart(label)} {count:,}' for label, count in shown], MANY_LABELS)}{rarest}"
        yield from _labels_alike(prepared)
    if survey.num_rows > survey.num_lessons:
        yield (
            f"rows: {survey.num_rows:,} of {counted(survey.num_lessons, 'conversation')}: with this chat template some answers are "
            "other tokens when they are read later on, and each of these is a row of its own, with all that was said before it"
        )
    if prepared.template is not None:
        yield f"chat template: {prepared.template.value}, {prepared.template.reason}"
    if prepared.sidecar is not None:
        changed = "" if prepared.sidecar.is_of_this_content else "; it was changed since, and that binds it no less"
        yield f"teacher: {prepared.sidecar.teacher} wrote this data{changed}"
        yield from (f"note: {note}" for note in prepared.sidecar.notes)
    if prepared.start is not None:
        yield from _start(prepared.start)
    yield from _labels_besides(prepared)
    if survey.duplicates:
        answer = "answer" if survey.question is None else "label"
        contradicting = f", {survey.contradictions:,} of them with another {answer}" if survey.contradictions else ""
        ask = "asks" if survey.duplicates == 1 else "ask"
        yield f"repeated: {counted(survey.duplicates, 'lesson')} {ask} what an earlier one asks{contradicting}"
        yield from islice(_contradictions(prepared), min(EXAMPLES_SHOWN, survey.contradictions))  # none behind the last is looked for
    if survey.shared_with_test:
        what = f"{counted(survey.dropped, 'lesson')} dropped" if survey.dropped else "kept, and a test on them proves little"
        yield f"asked in the test file, too: {counted(len(survey.shared_with_test), 'text')}; {what}"
        yield from (f"  {_in_a_line(text)}" for text in prepared.shared_texts[:EXAMPLES_SHOWN])
    yield from _held_out(prepared)
    if survey.too_long:
        yield f"too long for the model, left out: {len(survey.too_long):,} ({first_few(survey.too_long, EXAMPLES_SHOWN)})"
    steps = f"{counted(settings.epochs, 'epoch')}, {counted(settings.batch, 'lesson')} a step"
    yield f"settings: {steps}, rank {settings.rank}, learning rate {settings.learning_rate:g}"
    yield from _terms(prepared)


def _contradictions(prepared: Prepared) -> Iterator[str]:
    """The two places of each, with their labels, and the text."""
    for *both, is_other in repetitions(prepared.data.lessons):
        if is_other:
            places = [lesson.where if lesson.label is None else f"{lesson.where} {apart(lesson.label)}" for lesson in both]
            yield f"  {', '.join(places)}: {_in_a_line(text_of(both[1], len(both[1].messages)))}"


def _in_a_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_SHOWN]


def _terms(prepared: Prepared) -> Iterator[str]:
    """What may be done with the result, before it is there."""
    yield "terms of what learns from it:"
    yield from licences.verdict_lines(prepared.licence)
    data, title = prepared.data_terms[0], licences.licence(prepared.data_terms[0].licence).title
    if data.licence != licences.OWN and data.source != licences.STATED:
        yield f"note: {data.name} has its terms from nomoat's catalogue: {title}"
    elif not prepared.has_stated_terms and not prepared.teachers:
        yield f"note: `{data.name}` is taken as your own; name terms of others with --data-licence (in Python: `data_licence`)"


def _held_out(prepared: Prepared) -> Iterator[str]:
    """Which lessons are held out, and whether they can tell anything."""
    survey = prepared.survey
    if prepared.validation:
        dropped = survey.shared_with_validation
        also = f"; in the data, too, and dropped there: {counted(len(dropped), 'text')}" if dropped else ""
        if in_test := survey.validation_shared_with_test:
            also += f"; in the test file, too, and left out: {counted(len(in_test), 'text')}"
        num_read = _num_answers(prepared.validation) - _num_answers(prepared.split[1])
        if num_read:
            also += f"; learned from the data, too, and not measured: {counted(num_read, 'answer')}"
        count = count_lessons(prepared.validation)
        lessons = f"{count:,} lessons" if count > 1 else "one lesson"
        yield f"held out: the {lessons} of {prepared.others['validation']}{also}"
        if count_texts(prepared.validation) == 1:
            yield f"note: {ONE_TEXT}; give --validation (in Python: `validation`) a file that holds several"
    elif not prepared.split[1]:
        most = most_held_out(prepared)
        alone = " or is the only one with its label" if survey.labels else ""
        forks = " or has several conversations that go on from it" if any(sample.is_shared for sample in prepared.samples) else ""
        text = "text, or conversation with all its entries," if survey.question is None else "text"
        why = f"every {text} stands in more than {most:,} of them{alone}{forks}" if most else "a tenth of them is less than one"
        unmeasured = "whether tuning helps is not measured without --validation FILE (in Python: `validation`)"
        yield f"held out: none of the lessons, since {why}; {unmeasured}"


def _num_answers(samples: Iterable[Sample]) -> int:
    return sum(len(sample.answers) for sample in samples)


def _labels_alike(prepared: Prepared) -> Iterator[str]:
    """Which labels may be meant as one, and which look like several where they are asked for."""
    labels, is_listed = list(prepared.survey.labels), prepared.options["instruction"] is None
    if is_listed and prepared.start is None and (note := labelling.note_on_commas(labels)):
        yield f"note: {note}"
    alike = defaultdict[str | Decimal, list[str]](list)
    for label in labels:
        alike[_bare(label)].append(label)
    if same := [f"`{'`, `'.join(in_sight(label[:LONGEST_NAME]) for label in group)}`" for group in alike.values() if len(group) > 1]:
        yield (
            "note: labels that differ only in upper and lower case, in width, in spaces and what is not seen, in signs around them, "
            f"or in how a number is written: {'; '.join(same[:MANY_LABELS])}"
        )
    if none := [f"{apart(label)} {count:,}" for label, count in prepared.survey.labels.items() if NO_VALUE.fullmatch(label)]:
        yield f"note: labels that tables write where there is nothing, or a fault: {first_few(none, MANY_LABELS)}"


def _bare(label: str) -> str | Decimal:
    """Without case, width, spaces, signs around it and what is not seen; of a number (`1`, `1.0`, `+1`) its value."""
    plain = matching.normalise_answer(label) or unicodedata.normalize("NFKC", label).casefold()
    kept = places_in_signs(plain)
    bare = "".join(char for at, char in enumerate(plain) if at in kept or not is_blank(char))
    return Decimal(bare) if NUMBER.fullmatch(bare) else bare


def _labels_besides(prepared: Prepared) -> Iterator[str]:
    """Which labels the question names and no row teaches: an adapter knows them, a teacher could choose them, or rows were dropped."""
    besides = [label for label, count in prepared.survey.labels.items() if not count]
    if besides and prepared.options["instruction"] is None:
        yield f"labels asked for without a row to learn from: {first_few([apart(label) for label in besides], MANY_LABELS)}"


def _start(start: Start) -> Iterator[str]:
    file = start.provenance.get("data_file")
    yield f"goes on from the adapter `{start.name}`{f', which learned from {file}' if file else ''}"
    if start.other_base:
        yield f"note: it was learned beside {start.other_base}, other weights than these"
