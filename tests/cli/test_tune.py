"""`nomoat tune`, as a new user's log sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

NOMOAT = str(Path(sys.executable).with_name("nomoat"))


@pytest.fixture
def until(kernels: None, tiny_gguf: Path, tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """Tunes, sends SIGTERM or Ctrl-C when a line begins with `needle`, and gives exit code and what was said."""
    table = tmp_path / "colours.csv"
    table.write_text("text,label\n" + "".join(f"{'xy'[n % 2]} {n},{['red', 'blue'][n % 2]}\n" for n in range(60)))
    base = [NOMOAT, "tune", str(tiny_gguf), str(table), "--input-column", "text", "--label-column", "label", "--name", "c"]

    def run(*options: str, needle: str = "", number: int = signal.SIGTERM) -> tuple[int, list[str]]:
        with subprocess.Popen([*base, *options], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line.rstrip("\n"))
                if needle and line.startswith(needle):
                    process.send_signal(number)
                    needle = ""
        return process.returncode, said

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_says_how_to_go_on_and_other_settings_are_named(
    until: Callable[..., tuple[int, list[str]]], number: int
) -> None:
    code, said = until("--epochs", "500", needle="tuning", number=number)
    assert (code, said[-1]) == (130, "stopped; the same command with --resume goes on from here")
    assert any(line.startswith("measuring the base: 0%") for line in said)
    code, said = until("--epochs", "500", "--rank", "8", "--resume")
    assert (code, said[-2:]) == (
        1,
        ["error: the interrupted training of `c` was begun with rank 16, not 8",
         "hint: give the same arguments as then, or start again without --resume"],
    )  # fmt: skip


def test_a_training_stopped_before_it_learned_says_so(until: Callable[..., tuple[int, list[str]]]) -> None:
    code, said = until(needle="precision:")
    assert (code, said[-1]) == (130, "stopped before anything was learned")
