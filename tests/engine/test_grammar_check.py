"""Schemas that llguidance would not have ready soon are refused, and no others are tried."""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import pytest
from llguidance import LLMatcher
from patience import PATIENCE_SECONDS
from schemas import Allows

from nomoat import net
from nomoat.engine import grammar_check
from nomoat.engine.grammar import Grammars
from nomoat.errors import RemoteError, SchemaError

TEXT = {"type": "string"}
PATTERNS = [{"type": "string", "pattern": f".*{letter}.{{20}}"} for letter in "abcdefghijklmnopqrstuvwxyz"]


@pytest.mark.parametrize("schema", [{"allOf": PATTERNS}, {"type": "integer", "multipleOf": 100_000_007}])
def test_a_schema_that_would_take_hours_to_make_ready_is_refused(
    grammars: Grammars, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1)
    whole = json.dumps({"type": "object", "properties": {"a": schema}})
    with pytest.raises(SchemaError, match="cannot be followed: what its patterns, `multipleOf` or many parts allow takes too long"):
        grammars.of_schema(whole)
    assert not grammars.can_follow_call((("", whole),))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_where_memory_cannot_be_limited_processor_time_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, whose processes map hundreds of GB."""
    refusing = """
    set_one = resource.setrlimit
    def refuse(which, pair):
        if which == resource.RLIMIT_DATA:
            raise ValueError("current limit exceeds maximum limit")
        set_one(which, pair)
    resource.setrlimit = refuse
"""
    monkeypatch.setattr(grammar_check, "TRY", grammar_check.TRY.replace("else:\n", f"else:{refusing}", 1))
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1)
    grammar = LLMatcher.grammar_from_json_schema('{"type": "integer", "multipleOf": 100000007}')
    assert grammar_check._is_short(grammar) is False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold no process to such a limit")
def test_a_schema_that_would_take_all_memory_is_refused(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1000)
    monkeypatch.setattr(grammar_check, "MEMORY_BYTES", 64 << 20)
    with pytest.raises(SchemaError, match="takes too long to work out"):
        grammars.of_schema('{"type": "integer", "multipleOf": 100000009}')


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/x/const", "x": {"const": {"allOf": PATTERNS}}}, {"$ref": "#/default/0", "default": [{"multipleOf": 7}]},
        {"$ref": "#/enum/0", "enum": [{"allOf": PATTERNS}]}, {"$ref": "#/examples/a", "examples": {"a": {"allOf": PATTERNS}}},
        {"type": "string", "pattern": "a", "minLength": 9}, {"allOf": [{"pattern": "a"}, {"maxLength": 9}], "type": "string"},
        {"patternProperties": {"^a": TEXT, "b$": TEXT}}, {"pattern": "a", "format": "date"}, {"multipleOf": 7},
    ],
)  # fmt: skip
def test_a_schema_that_may_take_long_is_known_wherever_a_reference_may_find_it(schema: dict[str, Any]) -> None:
    assert grammar_check.may_take_long({"type": "object", "properties": {"x": schema}})


NAMES = [f"p{at}" for at in range(20_000)]
CHAIN = {f"d{at}": {"properties": {"a": {"$ref": f"#/$defs/d{at + 1}"}}, "required": ["a"]} for at in range(1500)}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize(
    "schema",
    [{"type": "object", "required": NAMES}, {"$ref": "#/$defs/d0", "$defs": {**CHAIN, "d1500": TEXT}}],
    ids=["listed", "chain"],
)
def test_a_schema_that_would_take_all_of_the_stack_is_refused(grammars: Grammars, schema: dict[str, Any]) -> None:
    """llguidance has no bound for it: the process would end, and with it all answers of a server."""
    with pytest.raises(SchemaError, match="takes too long to work out"):
        grammars.of_schema(json.dumps(schema))
    assert not grammars.can_follow_call((("", json.dumps(schema)),))


def test_a_schema_of_many_parts_is_tried_and_followed(allows: Allows) -> None:
    schema = {"enum": NAMES[:1500]}
    assert grammar_check.may_take_long(schema)
    assert allows(schema, '"p7"') and not allows(schema, '"q"')


def test_a_long_schema_is_sent_whole_to_a_process_that_is_slow_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is longer than what a pipe holds."""
    monkeypatch.setattr(grammar_check, "TRY", f"import time; time.sleep({4 * net.HEARTBEAT_SECONDS})\n{grammar_check.TRY}")
    assert grammar_check._is_short(LLMatcher.grammar_from_json_schema(json.dumps({"description": "x" * 300_000}))) is True


def test_usual_schemas_are_not_tried() -> None:
    assert not grammar_check.may_take_long(
        {"properties": {"pattern": TEXT, "a": {"pattern": "^a$"}, "format": {"enum": ["b"]}}, "required": ["pattern"]}
    )
    assert not grammar_check.may_take_long({"properties": {"day": {"format": "date"}, "name": {"minLength": 1, "maxLength": 9}}})


def test_several_patterns_that_are_soon_made_ready_are_followed(allows: Allows) -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string", "pattern": "^[a-z]{2}$"}, "day": {"type": "string", "pattern": "^\\d$"}},
    }
    assert allows(schema, '{"id":"ab","day":"7"}') and not allows(schema, '{"id":"ab","day":"x"}')
    assert allows({"type": "integer", "multipleOf": 7}, "21") and not allows({"type": "integer", "multipleOf": 7}, "22")


def asked_until(left: threading.Event, schema: str, grammars: Grammars) -> None:
    with net.asking_for(left), pytest.raises(RemoteError, match="nobody waits for this answer any more"):
        grammars.of_schema(schema)


def test_trying_a_schema_ends_when_whoever_asks_has_left(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1000)
    monkeypatch.setattr(grammar_check, "WALL_SECONDS", 1000)
    trials: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    left = threading.Event()

    def begun(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        trials.put(trial := popen(*args, **kwargs))
        return trial

    popen = subprocess.Popen
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(subprocess, "Popen", begun)
        asked = pool.submit(asked_until, left, '{"type": "integer", "multipleOf": 100000037}', grammars)
        trial = trials.get(timeout=PATIENCE_SECONDS)
        assert trial.returncode is None
        left.set()
        asked.result(timeout=PATIENCE_SECONDS)
    assert trial.returncode is not None
    assert not grammar_check._lock.locked()


def test_who_waits_for_another_schema_to_be_tried_may_leave(grammars: Grammars) -> None:
    left = threading.Event()
    with ThreadPoolExecutor(1) as pool, grammar_check._lock:
        asked = pool.submit(asked_until, left, '{"type": "integer", "multipleOf": 5}', grammars)
        left.set()
        asked.result(timeout=PATIENCE_SECONDS)


def test_a_schema_that_was_tried_does_not_wait_for_another_that_is(grammars: Grammars) -> None:
    schema = '{"type": "integer", "multipleOf": 11}'
    grammars.of_schema(schema)
    left = threading.Event()
    left.set()
    with grammar_check._lock, net.asking_for(left):
        grammars.of_schema(schema)


ENDED_FROM_OUTSIDE = [f"import os; os.kill(os.getpid(), {number})" for number in (2, 9, 15)]


@pytest.mark.parametrize(
    "trial",
    ["raise SystemExit(1)", *(ENDED_FROM_OUTSIDE if sys.platform != "win32" else ()), None],
)
def test_a_schema_that_cannot_be_tried_is_taken_and_tried_the_next_time(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trial: str | None
) -> None:
    """None: no process can be had."""
    caplog.set_level(logging.INFO, "nomoat.engine.grammar_check")
    monkeypatch.setattr(grammar_check, "_tried", {})
    schema = '{"type": "integer", "multipleOf": 7}'
    with monkeypatch.context() as patch:
        if trial is None:
            patch.setattr(subprocess, "Popen", Mock(side_effect=BlockingIOError("no more processes")))
        else:
            patch.setattr(grammar_check, "TRY", trial)
        grammars.of_schema(schema)
    assert not grammar_check._tried and caplog.messages[0].startswith("a JSON schema is taken untried: ")
    grammars.of_schema(schema)
    assert list(grammar_check._tried.values()) == [True] and len(caplog.messages) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="abort() ends with exit code 3 there")
def test_a_schema_that_crashes_the_trial_would_crash_this_process_and_is_refused(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_check, "TRY", "import os; os.abort()")
    with pytest.raises(SchemaError, match="takes too long to work out"):
        grammars.of_schema('{"type": "integer", "multipleOf": 13}')


def test_crashes_are_known_on_windows_and_ctrl_c_is_none() -> None:
    on_windows = {"access violation": 0xC0000005, "stack overflow": 0xC00000FD, "Ctrl-C": 0xC000013A}
    assert [grammar_check._told_by(code) for code in on_windows.values()] == [False, False, None]


def test_ctrl_c_does_not_end_a_trial_and_what_llguidance_refuses_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = "signal.raise_signal(signal.SIGINT)\nfrom llguidance import"
    monkeypatch.setattr(grammar_check, "TRY", grammar_check.TRY.replace("from llguidance import", stopped))
    assert grammar_check._is_short("no grammar, \u00e9") is True
