"""A training from the first look at its data to the adapter that is written; `loop` is the training itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import safetensors.torch  # noqa: F401 - `adapter.save` needs it, hours later

from nomoat import bounds, config
from nomoat.engine import forked
from nomoat.progress import Progress
from nomoat.rows import Given
from nomoat.tune import adapter, execution, interrupts, kernels, loop, prepare, qlora, verdict
from nomoat.tune.execution import ExecutionPlan
from nomoat.tune.loop import StageProgress
from nomoat.tune.surveying import survey_lines
from nomoat.uncut import uncut
from nomoat.words import first_few

SILENT_SECONDS = 5.0  # of reading the data, which takes a minute for 200,000 texts
OTHERS_SHOWN = 4  # names of other trainings


def tune(
    base: str | Path, data_path: Given, *, name: str, input_column: str | None = None, label_column: str | None = None,
    instruction: str | None = None, test: Given | None = None, keep_shared: bool = False, validation: Given | None = None,
    template: str | None = None, drop_long: bool = False, data_licence: str | None = None, minutes: float | None = None,
    epochs: float | None = None, rank: int | None = None, layers: int | None = None, learning_rate: float | None = None,
    batch: int | None = None, noise: float | None = None, seed: int = 0, resume: bool = False, replace: bool = False,
    workers: int | None = None, ray: str | None = None,
    on_progress: Callable[[StageProgress], None] | None = None, on_message: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Tune `base` on a file, or on rows (a list of dicts, a data frame), and write the adapter `name`; from then on `BASE+NAME`
    answers. Returns the adapter's folder.

    `base` may be a BASE+ADAPTER: what the adapter has learned is gone on from, and stays as it is itself.
    `input_column` to `drop_long` are those of `prepare.prepare`, `minutes` to `seed` those of `prepare.Settings`.
    `data_licence`: the id of the data's terms in the catalogue, "own" for your own, as which it is taken unless it is a file of a
    known data set; it enters the adapter's licence chain, and so does the teacher of data that `nomoat distil` made.
    With `workers` or `ray` several processes learn: see `data_parallel`.
    `on_progress` is told after each batch; `on_message` how far reading is where it takes long, what the data is like, and what may be
    wrong with it, then what was chosen and why, and what has come of it, as `verdict.result_lines` says it.
    Interrupted at any time (Ctrl-C, kill), the last checkpoint stays, and `resume=True` with the same arguments goes on from it, or
    begins anew where it was interrupted before there was one.
    Raises UsageError, DataError, UnknownModelError, NotEnoughMemoryError, NotEnoughDiskError, WorkerError, ForkedError.
    """
    settings = prepare.Settings(
        minutes=minutes, epochs=epochs, rank=rank, layers=layers, learning_rate=learning_rate, batch=batch, noise=noise, seed=seed
    )
    forked.require_none()
    _require_told(workers, on_progress, on_message)
    adapter.reserve(name, replace=replace, resume=resume)
    prepared = prepare.prepare(
        base, data_path, input_column=input_column, label_column=label_column, instruction=instruction, test=test,
        keep_shared=keep_shared, validation=validation, template=template, drop_long=drop_long, data_licence=data_licence,
        settings=settings, progress=_telling_of_reading(on_message or (lambda text: None)),
    )  # fmt: skip
    if on_message is not None:
        for line in survey_lines(prepared):
            on_message(line)
    return learn(
        prepared, name=name, resume=resume, replace=replace, workers=workers, ray=ray,
        on_progress=on_progress, on_message=on_message,
    )  # fmt: skip


def _telling_of_reading(say: Callable[[str], None]) -> Progress:
    """Says at each new tenth how far reading is, once it has taken SILENT_SECONDS."""
    began, tenths = time.monotonic(), 0

    def tell(done: int, total: int) -> None:
        nonlocal tenths
        if 10 * done // total > tenths and time.monotonic() - began >= SILENT_SECONDS:
            tenths = 10 * done // total
            say(f"reading: {done:,} of {total:,} lessons")

    return tell


def learn(
    prepared: prepare.Prepared, *, name: str, resume: bool = False, replace: bool = False,
    workers: int | None = None, ray: str | None = None,
    on_progress: Callable[[StageProgress], None] | None = None, on_message: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """`tune`, with the data prepared already."""
    _require_told(workers, on_progress, on_message)
    say = on_message or (lambda text: None)
    target = adapter.reserve(name, replace=replace, resume=resume)
    adapter.require_disk(target, execution.num_learned(prepared))
    with (
        adapter.tuning(target, prepared.weights), interrupts.translate_errors(prepared.weights.name, name, resume=resume),
        kernels.threads_of_the_caller(),
    ):  # fmt: skip
        adapter.reserve(name, replace=replace, resume=resume)  # again: another training may have ended since
        facts = prepared.facts()  # of the files as they are now
        checkpoint = adapter.Checkpoint(target, facts)
        saved = checkpoint.load() if resume and adapter.can_resume(name) else None
        if resume and not saved:
            others = [f"`{other}`" for other in adapter.resumable() if other != name]
            there = f"; states are there of {first_few(others, OTHERS_SHOWN)}" if others else ""
            say(f"there is no state of an interrupted training of `{name}` to go on from: it begins anew{there}")
        types = execution.types_in_tiles(prepared, qlora.fastest_precision().value)
        kernels.use_threads(config.threads().value, say, types=types)
        with crew(prepared, workers, ray, say) as learners:
            plan = ExecutionPlan(**saved["way"]) if saved else learners.choose_plan(say)
            run = learners.opened(plan, say, on_progress, is_resumed=saved is not None)
            if saved:
                run.restore(saved)
                say(f"going on from step {run.step}, {run.fraction:.0%} of the work")
            else:
                checkpoint.remove()  # an earlier training's of this name: --resume is to mean this one, now that it can begin
                if run.validation:
                    run.measure_base(on_progress, say)
                    if run.seconds_looking > loop.CHECKPOINT_SECONDS:  # it need not be done again
                        checkpoint.save(run.state())
            run.train(checkpoint, on_progress, say)
            run.use_best()
        with uncut():  # with both of them there, --resume would refuse what it is named for
            metrics = run.metrics()
            adapter.save(target, run.learned, prepared, facts, metrics)
            checkpoint.remove()
    for line in verdict.result_lines(metrics, has_file="validation" in prepared.others):
        say(line)
    return target


def _require_told(workers: int | None, on_progress: object, on_message: object) -> None:
    for name, told in (("on_progress", on_progress), ("on_message", on_message)):
        if told is not None:
            bounds.require_type(name, told, Callable)
    if workers is not None:
        bounds.whole("workers", workers)


def crew(
    prepared: prepare.Prepared, workers: int | None, ray: str | None, say: Callable[[str], None]
) -> AbstractContextManager[loop.Learners]:
    """This process, unless several workers or a cluster are asked for: see `data_parallel.learners`."""
    if ray is None and workers in (None, 1):
        return nullcontext(loop.ThisProcess(prepared))
    from nomoat.tune import data_parallel

    return data_parallel.learners(prepared, workers, ray, say)
