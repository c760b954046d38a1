"""What a signal does not cut in two: a step of a training, and the import of what cannot be imported again."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

import nomoat
from nomoat import callable_package
from nomoat.uncut import STOPS, uncut


def stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_waits_for_the_end_of_what_is_not_to_be_cut(number: int) -> None:
    before = signal.signal(number, stop)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt), uncut():
            signal.raise_signal(number)
            done.append("all of it")
        assert done and signal.getsignal(number) is stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_in_another_thread_which_no_signal_interrupts_nothing_is_held_back() -> None:
    handlers = []

    def work() -> None:
        with uncut():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


@pytest.mark.parametrize("way", ["of nomoat itself", "of a package that stands for its function"])
def test_what_a_public_function_needs_is_imported_whole_though_the_notebook_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """PyTorch that was interrupted while it was imported could not be imported again in that kernel."""
    slow = "import signal\nsignal.raise_signal(signal.SIGINT)\ndef slowly_imported(): return 'whole'\n"
    (tmp_path / "slowly_imported.py").write_text(slow, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(nomoat._WHERE, "slowly_imported", "slowly_imported")
    package = callable_package.CallablePackage("nomoat.slowly_imported")
    vars(package)["_module"] = "slowly_imported"
    try:
        with pytest.raises(KeyboardInterrupt):
            nomoat._imported("slowly_imported") if way == "of nomoat itself" else package()
        assert sys.modules["slowly_imported"].slowly_imported() == "whole"
    finally:
        sys.modules.pop("slowly_imported", None)
