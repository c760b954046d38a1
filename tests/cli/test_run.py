"""`nomoat run`: one question from argument or pipe, as a new user's shell sees it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import shell
from misbehaving import FINE, Server, events, half, piece, say
from patience import PATIENCE_SECONDS
from tiny import write_tiny_gguf

from nomoat import footprint
from nomoat.cli import answering
from nomoat.engine.fake import FakeEngine
from nomoat.errors import UsageError
from nomoat.records import Chunk, FinishReason, Request, Usage
from nomoat.responder import Responder
from nomoat.route.pii import KINDS
from nomoat.route.policy import default_path

run_command = importlib.import_module("nomoat.cli.run")  # `nomoat.cli.run` itself is the command
NO_SEED = "note: `m` at `127.0.0.1` refuses `seed`: asked again it may answer otherwise\n"
HINT = 'hint: nomoat run MODEL "PROMPT", or pipe text in\n'


def run(*arguments: str, piped: bytes = b"", **environment: str) -> shell.Done:
    return shell.nomoat("run", *arguments, piped=piped, **environment)


def test_answer_goes_to_stdout_and_its_speed_to_stderr() -> None:
    done = shell.program("run", "fake:", "세 단어 👩‍🚀")
    assert (done.returncode, done.stdout) == (0, "👩‍🚀 단어 세\n")
    assert done.stderr == "[3 prompt tokens, 3 new, 0.0 s]\n"


def test_a_model_that_is_not_here_leaves_nothing_in_its_place(tmp_path: Path) -> None:
    done = shell.program("run", "smollm2-135m", "hi", NOMOAT_HOME=str(tmp_path / "home"))
    assert (done.returncode, done.stderr) == (1, "error: `smollm2-135m` is not on this machine yet\nhint: nomoat pull smollm2-135m\n")
    assert not (tmp_path / "home").exists()


def test_piped_text_is_the_prompt_and_follows_an_argument() -> None:
    assert run("fake:", piped="b a".encode("utf-8-sig")).stdout == "a b\n"
    assert run("fake:", "one", piped=b"two\n").stdout == "two one\n"
    assert run("fake:", "-", piped=b"b a").stdout == "a b\n"
    assert run("fake:", "-").stderr == f"error: the prompt is empty\n{HINT}"


def test_what_is_written_to_a_pipe_in_the_letters_of_a_korean_windows_is_read_from_one() -> None:
    command, korean = [shell.NOMOAT, "run", "fake:"], {**os.environ, "PYTHONIOENCODING": "cp949"}
    done = subprocess.run(
        command, input="가 나".encode("cp949"), capture_output=True, timeout=PATIENCE_SECONDS, check=True, env=korean
    )
    assert done.stdout.decode("cp949").splitlines() == ["나 가"]
    assert done.stderr.startswith(b"note: what is piped in is not UTF-8 text, and is read as cp949, as this system writes it")


def test_system_message_counts_and_limit_is_told_when_it_cuts() -> None:
    done = run("fake:", "a b c", "--system", "be brief", "-n", "2")
    assert done.stdout == "c b\n"
    assert done.stderr == "[cut at 2 new tokens; --max-tokens raises that]\n[5 prompt tokens, 2 new, 0.0 s]\n"


def test_json_prints_one_object_and_nothing_else() -> None:
    done = run("fake:", "a b", "--json")
    said = json.loads(done.stdout)
    assert (said["model"], said["text"], said["finish_reason"], said["bytes_out"]) == ("fake:", "b a", "stop", 0)
    assert said["usage"]["prompt_tokens"] == 2
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [("a b", "length", "[cut after 2 new tokens: the model's context is full]"),
     ("a b", "filtered", "[ended by the server's filter]"), ("", "filtered", "[ended by the server's filter]"),
     ("", "stop", "[the model ended its answer without a word]")],
)  # fmt: skip
def test_an_answer_that_ends_early_says_why(capsys: pytest.CaptureFixture[str], text: str, reason: FinishReason, line: str) -> None:
    usage = Usage(prompt_tokens=8, completion_tokens=2, prefill_seconds=0, decode_seconds=0)
    answering.say_outcome(answering.Shown(text=text, finish_reason=reason, usage=usage), max_new_tokens=512)
    assert capsys.readouterr().err.splitlines()[0] == line


def test_an_answer_that_a_server_cuts_before_the_limit_is_not_said_to_have_filled_the_context(serving: Callable[..., Server]) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    server = serving(events(piece("so f", "length"), {"choices": [], "usage": usage}))
    done = run(f"{server.url}#m", "hello")
    line = "[cut after 5 new tokens: its server has a limit of its own, or the model's context is full]"
    assert (done.stdout, done.stderr.splitlines()[0]) == ("so f\n", line)


@pytest.mark.parametrize(("limit", "line"), [(None, "[cut: "), (512, "[cut: --max-tokens raises that, unless ")])
def test_a_cut_answer_whose_server_told_no_tokens_is_said_to_have_no_number_of_them(
    capsys: pytest.CaptureFixture[str], limit: int | None, line: str
) -> None:
    usage = Usage(prompt_tokens=0, completion_tokens=0, is_counted=False, prefill_seconds=0, decode_seconds=0)
    shown = answering.Shown(text="so f", finish_reason="length", usage=usage)
    answering.say_outcome(shown, max_new_tokens=limit, knows_context=False)
    why = "its server has a limit of its own, or the model's context is full]"
    assert capsys.readouterr().err.splitlines()[0] == line + why


def test_json_asks_again_for_an_answer_that_broke_off_and_says_which_setting_was_refused(serving: Callable[..., Server]) -> None:
    server = serving(half, say(400, {"error": {"message": "Unknown name seed"}}), FINE)
    done = run(f"{server.url}#m", "hello", "--json", "--seed", "1")
    assert (json.loads(done.stdout)["text"], len(server.bodies)) == ("hello 안녕", 3)
    assert done.stderr == NO_SEED


def test_what_a_server_refused_is_said_after_its_answer(serving: Callable[..., Server]) -> None:
    server = serving(say(400, {"error": {"message": "Unknown name seed"}}), FINE)
    done = run(f"{server.url}#m", "hello", "--seed", "1")
    assert done.stderr.startswith(NO_SEED + "[5 prompt tokens")


@pytest.mark.parametrize(("text", "noted"), [("hello", [NO_SEED]), ("전화는 010-1234-5678", [])])
def test_auto_says_it_of_answers_from_the_cloud_only(serving: Callable[..., Server], text: str, noted: list[str]) -> None:
    server = serving(say(400, {"error": {"message": "Unknown name seed"}}), FINE)
    default_path().parent.mkdir(parents=True)
    default_path().write_text(f'local = "fake:"\ncloud = "{server.url}#m"\ndefault = "cloud"')
    done = run("auto", text, "--seed", "1", NOMOAT_OFFLINE="0")
    assert [line for line in done.stderr.splitlines(keepends=True) if line.startswith("note: ")] == noted


def test_auto_says_the_chat_template_that_is_named(tiny_gguf: Path) -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_text(f'local = "{tiny_gguf.as_posix()}"')
    said = run("auto", "a b", "--max-tokens", "1", "--template", "falcon").stderr
    assert "[tiny.gguf, chat template: falcon, as asked]\n" in said


def test_a_chat_template_that_nobody_knows_is_refused_whatever_the_model() -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_text('local = "fake:"')
    for ref in ("fake:", "auto", "http://127.0.0.1:9/v1#m"):
        assert run(ref, "a b", "--template", "nobody").stderr.startswith("error: no chat template is called `nobody`\n"), ref


def test_auto_says_once_what_its_policy_does_not_keep_here() -> None:
    default_path().parent.mkdir(parents=True)
    kinds = [kind for kind in KINDS if kind not in ("api_key", "name")]
    default_path().write_text(f'local = "fake:"\ncloud = "openai:big"\nnever_leaves = {json.dumps(kinds)}')
    said = run("auto", "a b").stderr
    assert said.startswith("note: never_leaves does not name api_key: such data may leave\n[local: ")
    assert said.count("never_leaves") == 1


def test_raw_prompt_is_continued_without_a_template() -> None:
    assert run("fake:", "a b", "--raw").stdout == "b a\n"


@pytest.mark.parametrize(
    ("arguments", "piped", "stderr"),
    [
        (["fake:"], b"", "error: the prompt is empty\n" + HINT),
        (["fake:", "  "], b"\n", "error: the prompt is empty\n" + HINT),
        (["fake:"], b"caf\xe9",
         "error: what is piped in is not UTF-8 text (byte 3)\n"
         "hint: save it as UTF-8, or convert it, such as Korean of Windows: `iconv -f cp949 -t utf-8`\n"),
        (["fake:", "a", "--raw", "--system", "b"], b"",
         "error: `--raw` uses no chat template, and `--system` needs one\nhint: leave one of them out\n"),
        (["fake:", "x " * 5000], b"",
         "error: the prompt is too long: it has 5,000 tokens and the answer may have 512, but the model's context is 4,096 tokens\n"
         "hint: shorten the prompt, ask for fewer new tokens, or choose a model with a longer context\n"),
        (["openai:gpt", "a"], b"",
         "error: refused to connect to `api.openai.com` to ask a model server: NOMOAT_OFFLINE is set\n"
         "hint: unset NOMOAT_OFFLINE to allow it\n"),
        (["", "a"], b"",
         "error: `` names no model\n"
         "hint: write MODEL, or BASE+ADAPTER for a tuned one; `nomoat models` lists the models\n"),
        (["smollm2-135m+", "a"], b"",
         "error: `smollm2-135m+` names no model\n"
         "hint: write MODEL, or BASE+ADAPTER for a tuned one; `nomoat models` lists the models\n"),
        (["hf:a", "a"], b"",
         "error: `hf:a` names no file of the hub\n"
         "hint: a GGUF file of the hub is named `hf:owner/repo/file.gguf`, a folder of safetensors `hf:owner/repo`\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_two_lines_on_stderr_and_exit_code_1(arguments: list[str], piped: bytes, stderr: str) -> None:
    done = run(*arguments, piped=piped)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", stderr)


@pytest.mark.parametrize(
    ("option", "value", "is_taken"),
    [
        ("--repeat-penalty", "0.01", True), ("--repeat-penalty", "1e-40", False), ("--repeat-penalty", "10.5", False),
        ("--temp", "2", True), ("--temp", "2.1", False), ("--top-p", "0", True), ("--top-p", "1.1", False), ("--min-p", "-0.1", False),
    ],
)  # fmt: skip
def test_settings_of_sampling_have_the_bounds_they_have_in_python(option: str, value: str, is_taken: bool) -> None:
    done = run("fake:", "a", option, value)
    assert done.returncode == (0 if is_taken else 2)
    assert is_taken or f"Invalid value for '{option}'" in done.stderr
    name = {"--repeat-penalty": "repetition_penalty", "--temp": "temperature"}.get(option, option.strip("-").replace("-", "_"))
    with nullcontext() if is_taken else pytest.raises(UsageError, match=f"`{name}` is "):
        Request(prompt="a", **{name: float(value)})  # type: ignore[arg-type]


def test_an_answer_without_a_limit_ends_with_the_context() -> None:
    done = run("fake:", " ".join(["a"] * 600), "-n", "-1")
    assert (len(done.stdout.split()), done.returncode) == (600, 0)
    for none in ("0", "-2"):
        done = run("fake:", "a", "-n", none)
        assert done.returncode == 2 and "Invalid value for '--max-tokens' / '-n'" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell's pipe")
def test_reader_that_goes_away_ends_it_quietly() -> None:
    command = f'set -o pipefail; "{shell.NOMOAT}" run fake: "a b c" | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 1)


class Interrupted(FakeEngine):
    """Presses Ctrl-C after its first word, and notes whether it was closed."""

    closed = False

    def generate(self, request: Request) -> Iterator[Chunk]:
        try:
            yield Chunk(text="first")
            signal.raise_signal(signal.SIGINT)
            yield Chunk(text=" second")
        finally:
            self.closed = True


def test_ctrl_c_keeps_what_was_said_and_closes_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Interrupted()
    shown = answering.show(Responder("fake", engine), Request(prompt="x"))
    answering.say_outcome(shown, max_new_tokens=1)
    assert (shown.text, shown.finish_reason, shown.usage, engine.closed) == ("first", "cancelled", None, True)
    assert capsys.readouterr() == ("first\n", "[stopped]\n")


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (Usage(prompt_tokens=1520, completion_tokens=65, prefill_seconds=1.0, decode_seconds=0.8),
         "[1,520 prompt tokens at 1,520 tok/s, 65 new at 80 tok/s, 1.8 s]"),
        (Usage(prompt_tokens=3000, completion_tokens=65, prefill_seconds=0.1, decode_seconds=0.8, cached_tokens=2944),
         "[3,000 prompt tokens, 2,944 of them known, 56 read at 560 tok/s, 65 new at 80 tok/s, 0.9 s]"),
        (Usage(prompt_tokens=0, completion_tokens=0, prefill_seconds=0.5, decode_seconds=0.3, bytes_out=1234),
         "[tokens not told, 0.8 s, 1,234 bytes sent out]"),
    ],
)  # fmt: skip
def test_speed_line_says_what_was_measured_and_what_was_sent(usage: Usage, line: str) -> None:
    assert answering.render_speed(usage) == line


def test_help_needs_no_engine_and_begins_with_examples() -> None:
    code = "import sys; from nomoat.cli import app; app(['run', '--help'], standalone_mode=False); print('openvino' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.index("Examples:") < done.stdout.index("Options:")
    assert done.stdout.endswith("False\n")


@pytest.mark.skipif(not footprint.has_native_kernels(), reason="nomoat's own products need AVX2, FMA and F16C")
def test_a_start_needs_no_compiler_where_what_is_compiled_is_kept(tmp_path: Path, kernels: None) -> None:
    """It takes longer to import than all else."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf", type_name="Q4_0")
    code = "import sys, nomoat; print(len(nomoat.load(sys.argv[1]).complete('a').text) > 0, 'numba' in sys.modules)"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_json_tells_how_likely_each_token_was_if_asked() -> None:
    said = json.loads(run("fake:", "둘 one", "--json", "--logprobs", "1").stdout)
    assert [token["token"] for token in said["tokens"]] == ["one", " 둘"]
    assert said["tokens"][1]["bytes"] == list(" 둘".encode()) and said["tokens"][0]["log_probability"] == pytest.approx(
        -0.6931, abs=1e-4
    )
    assert len(said["tokens"][0]["top"]) == 1 and "tokens" not in json.loads(run("fake:", "x", "--json").stdout)


def test_a_schema_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text('{"type": "object"}', encoding="utf-8-sig")
    assert run_command._schema_text(path) == '{"type": "object"}'


def test_a_templates_variables_are_json_or_text() -> None:
    assert run_command._variables_text(["b=false", "a=서울", "c=x=1", 'd={"e": 1}']) == (
        '{"a": "서울", "b": false, "c": "x=1", "d": {"e": 1}}'
    )
    assert run_command._variables_text([]) == ""


def test_what_the_sampling_options_cannot_mean_is_refused(tmp_path: Path) -> None:
    assert run("fake:", "x", "--logprobs", "1").stderr == ("error: `--logprobs` prints numbers for machines\nhint: add `--json`\n")
    assert run("fake:", "x", "--template-variable", "thinking").stderr == (
        "error: `--template-variable thinking` gives no value\nhint: write NAME=VALUE, such as enable_thinking=false\n"
    )
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name in ("none.json", "deep.json"):
        done = run("fake:", "x", "--json-schema", str(tmp_path / name))
        assert done.returncode == 1 and done.stderr.startswith(f"error: cannot read the JSON schema `{tmp_path / name}`: ")
