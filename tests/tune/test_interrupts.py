"""What stops a training: an interruption leaves no step half done, and want of memory is an error that says how to go on."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import learning
import pytest
import torch
import typer
from learning import weights

from nomoat import hardware, paths
from nomoat.cli.tune import learn_with_bar
from nomoat.errors import BadFileError, NotEnoughDiskError, NotEnoughMemoryError, UsageError
from nomoat.tune import adapter, loop, prepare, sweeps, train
from nomoat.tune.samples import Sample

pytestmark = pytest.mark.usefixtures("same_precision_everywhere")
SETTINGS = prepare.Settings(rank=4, epochs=1, learning_rate=5e-3)
tune = functools.partial(learning.tune, settings=SETTINGS)
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("within", ["_average", "_use"], ids=["a step is done and not counted", "averaged weights are looked at"])
def test_interrupted_at_an_awkward_moment_it_resumes_to_the_weights_of_an_uninterrupted_one(
    tiny_gguf: Path, table: Path, uninterrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    whole = weights(uninterrupted(SETTINGS))
    original, calls = getattr(loop.Run, within), itertools.count(1)

    def interrupted(*given: Any) -> None:
        original(*given)
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Run, within, interrupted)
        tune(tiny_gguf, table, "parts")
    resumed = weights(tune(tiny_gguf, table, "parts", resume=True))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_interrupted_among_those_known_least_it_goes_on_with_the_same_ones(
    tiny_gguf: Path, table: Path, uninterrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were chosen by losses that others have by then."""
    monkeypatch.setattr(sweeps, "MANY_LABELS", 3)
    settings = prepare.Settings(rank=4, epochs=2, batch=8, learning_rate=5e-3)  # 11 steps of all, then 6 of those
    whole = weights(uninterrupted(settings))

    def stop_there(progress: loop.StageProgress) -> None:
        if progress.step == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, "parts", settings=settings, on_progress=stop_there)
    resumed = weights(tune(tiny_gguf, table, "parts", settings=settings, resume=True))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_terminal_that_is_closed_and_says_so_twice_leaves_the_checkpoint_whole(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second signal comes while what was learned is written."""
    save, saved = adapter.Checkpoint.save, []

    def interrupted(checkpoint: adapter.Checkpoint, state: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        save(checkpoint, state)
        saved.append(state["numbers"]["step"])

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adapter.Checkpoint, "save", interrupted)
        tune(tiny_gguf, table, on_progress=lambda progress: stop() if progress.step == 3 else None)
    assert saved == [3]
    assert adapter.can_resume("colours")


def test_what_has_stopped_early_learns_no_more_when_its_end_is_made_up_for(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = itertools.chain([9.0, 1.0], itertools.repeat(7.0))  # of the base, and of each look

    def evaluated(run: loop.Run, *_: object) -> tuple[list[float], list[bool]]:
        loss = next(losses)
        return [loss * sample.num_learned for sample in run.validation], [False] * len(run.validation)

    monkeypatch.setattr(loop.Run, "evaluate", evaluated)
    settings = replace(SETTINGS, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adapter, "save", stop)
        tune(tiny_gguf, table, settings=settings)
    steps: list[int] = []
    said: list[str] = []
    told = {"on_progress": lambda progress: steps.append(progress.step), "on_message": said.append}
    tune(tiny_gguf, table, settings=settings, resume=True, **told)
    assert steps == []
    assert "stopped early: 2 looks at the lessons held out were clearly worse than the best" in said


def test_a_new_training_forgets_the_interrupted_one_of_its_name(tiny_gguf: Path, table: Path) -> None:
    """Interrupted before it has learned anything, it has nothing to go on from."""
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, on_progress=lambda progress: stop() if progress.step == 3 else None)
    assert adapter.can_resume("colours")
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, settings=prepare.Settings(rank=8), on_progress=stop)
    assert not adapter.can_resume("colours")
    assert list(paths.adapters().iterdir()) == []


def test_what_is_to_go_on_where_nothing_was_saved_says_that_it_was_stopped_before_it_learned(
    tiny_gguf: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("support", "other"):
        state = adapter.checkpoint_folder(paths.adapters() / name) / adapter.CHECKPOINT_FILE
        state.parent.mkdir(parents=True)
        state.touch()
    adapter.checkpoint_folder(paths.adapters() / "nothing there").mkdir()
    monkeypatch.setattr(loop.Run, "evaluate", stop)
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **learning.COLUMNS)
    with pytest.raises(typer.Exit):
        learn_with_bar(prepared, name="colours", resume=True)
    said = capsys.readouterr().err.splitlines()
    anew = "there is no state of an interrupted training of `colours` to go on from: it begins anew"
    assert f"{anew}; states are there of `other`, `support`" in said
    assert said[-1] == "stopped before anything was learned"


@pytest.mark.parametrize("refused", ["memory", "disk", "cluster", "weights"])
def test_a_training_that_cannot_begin_leaves_the_interrupted_one_of_its_name_and_does_not_say_it_could_go_on(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: str
) -> None:
    still_there = "stopped before anything was learned; the state of the earlier training of this name is still there"
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **learning.COLUMNS)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, on_progress=lambda progress: stop() if progress.step == 3 else None)
    if refused in ("memory", "disk"):
        code, error = {"memory": (errno.ENOMEM, NotEnoughMemoryError), "disk": (errno.ENOSPC, NotEnoughDiskError)}[refused]

        def fail(*_: object) -> None:
            raise OSError(code, "", str(paths.adapters()))

        monkeypatch.setattr(loop.Run, "_open", fail)
        with pytest.raises(error) as caught:
            train.learn(prepared, name="colours")
        assert "--resume" not in (caught.value.hint or "")
    else:
        monkeypatch.setattr(*((train, "crew") if refused == "cluster" else (loop.Run, "_open")), stop)
        with pytest.raises(typer.Exit):
            learn_with_bar(prepared, name="colours")
        assert capsys.readouterr().err.splitlines()[-1] == still_there
    assert adapter.can_resume("colours")


def test_a_signal_while_the_adapter_is_written_leaves_it_whole_and_no_state(
    tiny_gguf: Path, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else --resume, which Ctrl-C names, would find both, and refuse."""
    save = adapter.save

    def interrupted(*given: Any) -> None:
        save(*given)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(adapter, "save", interrupted)
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **learning.COLUMNS)
    with pytest.raises(typer.Exit) as caught:
        learn_with_bar(prepared, name="colours")
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped when all was done: the adapter is written"
    assert [path.name for path in paths.adapters().iterdir()] == ["colours"]


def test_killed_behind_the_adapter_and_before_its_state_was_removed_it_says_what_is_there(
    tiny_gguf: Path, table: Path, uninterrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(uninterrupted(SETTINGS))
    with monkeypatch.context() as patch:
        patch.setattr(adapter.Checkpoint, "remove", lambda _: None)
        tune(tiny_gguf, table)
    with pytest.raises(UsageError, match="there is an adapter `colours` already") as caught:
        tune(tiny_gguf, table, resume=True)
    assert caught.value.hint == (
        "if the training was stopped while it wrote the adapter, this is what it has learned; "
        "else --replace it with what comes of going on (in Python: `replace`)"
    )
    written = weights(tune(tiny_gguf, table, resume=True, replace=True))
    assert all(torch.equal(whole[name], written[name]) for name in whole)
    assert not adapter.can_resume("colours")


@pytest.mark.parametrize(
    "error", [RuntimeError(NO_MEMORY), MemoryError(), OSError(errno.ENOMEM, "")], ids=["PyTorch's", "Python's", "the system's"]
)
def test_want_of_memory_says_how_to_go_on(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    learn = loop.Run._learn

    def learned(run: loop.Run, batch: list[Sample]) -> float:
        if run.step == 3:
            raise error
        return learn(run, batch)

    monkeypatch.setattr(loop.Run, "_learn", learned)
    for seconds, how in (
        (1e9, "close other programs, or"),
        (0.0, "close other programs and go on with --resume (in Python: `resume`), or"),
    ):
        monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(NotEnoughMemoryError) as caught:
            tune(tiny_gguf, table)
        assert caught.value.message == "the memory was not enough to go on tuning `tiny.gguf`"
        assert caught.value.hint == f"{how} start again with a lower --batch or --rank (in Python: `batch`, `rank`)"
    left = hardware.Detected(10**12, "left within the container's limit")
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: left)
    with pytest.raises(NotEnoughMemoryError) as caught:
        tune(tiny_gguf, table)
    assert (caught.value.hint or "").startswith("raise the container's limit and go on with --resume")


@pytest.mark.parametrize("has_saved", [True, False])
def test_a_disk_that_fills_up_says_how_to_go_on_and_leaves_no_empty_folder(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, has_saved: bool
) -> None:
    saved: list[int] = []
    write = Path.write_bytes

    def written(path: Path, content: bytes) -> int:
        if ".checkpoint" in path.parent.name:
            saved.append(len(content))
            if len(saved) > has_saved:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", written)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(NotEnoughDiskError, match="no space left on the disk of") as caught:
        tune(tiny_gguf, table)
    assert (caught.value.hint or "").endswith("; then the same again with --resume (in Python: `resume`) goes on") == has_saved
    assert adapter.can_resume("colours") == has_saved
    assert list(paths.adapters().iterdir()) == ([adapter.checkpoint_folder(paths.adapters() / "colours")] if has_saved else [])


def test_a_disk_without_room_for_two_checkpoints_is_said_before_anything_is_learned(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is written beside the last. What an interrupted training has there already is counted."""
    room = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: room)
    with pytest.raises(NotEnoughDiskError, match=r"(?m)^`.*adapters` needs \d+ kB, and its disk has 1 kB free$"):
        tune(tiny_gguf, table, on_progress=lambda _: pytest.fail("has begun"))
    target = paths.adapters() / "interrupted"
    there = adapter.checkpoint_folder(target) / adapter.CHECKPOINT_FILE
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes(10_000))
    room.free = 30_000
    adapter.require_disk(target, num_learned=1000)
    room.free -= 1
    with pytest.raises(NotEnoughDiskError):
        adapter.require_disk(target, num_learned=1000)


def test_any_other_error_is_left_as_it_is(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not go together")

    monkeypatch.setattr(loop.Run, "_learn", fail)
    with pytest.raises(RuntimeError, match="shapes do not go together"):
        tune(tiny_gguf, table)


def test_a_training_is_not_resumed_where_the_memory_its_way_needs_is_not_free(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, on_progress=lambda progress: stop() if progress.step == 3 else None)
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: hardware.Detected(5 * 10**8, "set by the test"))
    with pytest.raises(NotEnoughMemoryError) as caught:
        tune(tiny_gguf, table, resume=True)
    assert caught.value.message == "going on as it began needs about 0.6 GB of memory, and 0.5 GB are free (set by the test)"
    assert caught.value.hint == "close other programs, or start again without --resume (in Python: `resume`)"
    assert adapter.can_resume("colours")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_checkpoint_that_was_cut_is_told_in_words_and_how_to_start_again(share: float) -> None:
    checkpoint = adapter.Checkpoint(paths.adapters() / "colours", {"base": "b"})
    checkpoint.save({"weights": torch.zeros(10_000)})
    path = adapter.checkpoint_folder(paths.adapters() / "colours") / adapter.CHECKPOINT_FILE
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(BadFileError) as caught:
        checkpoint.load()
    assert caught.value.message == f"`{path}` is not a whole checkpoint: it was cut off or changed"
    assert caught.value.hint is not None and caught.value.hint.startswith(f"{adapter.START_AGAIN}; `nomoat rm b+colours` removes")


def test_a_checkpoint_that_the_system_does_not_give_is_not_to_be_begun_anew() -> None:
    checkpoint = adapter.Checkpoint(paths.adapters() / "colours", {"base": "b"})
    path = adapter.checkpoint_folder(paths.adapters() / "colours") / adapter.CHECKPOINT_FILE
    path.mkdir(parents=True)
    with pytest.raises(BadFileError) as caught:
        checkpoint.load()
    assert re.fullmatch(rf"`{re.escape(str(path))}` cannot be read: (Is a directory|Permission denied)", caught.value.message)
    assert caught.value.hint == "check the disk, and who may read the file"


def test_memory_that_is_short_while_a_checkpoint_is_read_does_not_make_it_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise RuntimeError(NO_MEMORY)

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        adapter.Checkpoint(paths.adapters() / "colours", {"base": "b"}).load()
