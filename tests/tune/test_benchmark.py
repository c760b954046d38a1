"""`benchmarks/tuning.py`: what is missing is said, before anything is learned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tuning.py"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SCRIPT.exists(), reason="needs the repository's benchmarks folder")]


def said(task: str, data: Path) -> tuple[int, str]:
    """Exit code and stderr, without a mirror."""
    environment = {name: value for name, value in os.environ.items() if name != "NOMOAT_MIRROR"}
    command = [sys.executable, str(SCRIPT), task, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stderr


def test_a_training_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert said("sms_spam", tmp_path) == (
        1,
        f"error: `{tmp_path}` holds no `sms_spam/sms_spam_train.tsv`, gzipped or not\n"
        "hint: name the folder of training files with --data\n",
    )


def test_a_test_split_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "sms_spam").mkdir()
    (tmp_path / "sms_spam" / "sms_spam_train.tsv").write_text("text\tannotation\nhi\tnot spam\n")
    code, words = said("sms_spam", tmp_path)
    assert code == 1
    assert words.startswith("error: ") and "\nhint: " in words and "Traceback" not in words
