"""`nomoat show`, as a user's shell sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from homes import be_at_home_in
from reference import MIXTURES, make_model, write_folder, write_gguf
from shell import Done
from tiny import write_tiny_gguf

from nomoat import footprint, hardware
from nomoat.engine import layout, optimum, step_tables
from nomoat.judge.suites import load_suite
from nomoat.labelling import kept_question

Nomoat = Callable[..., Done]
HUB = "hf:owner/repo/m.gguf"


def test_show_gives_the_three_reasons_against_alpaca_with_their_sources(program: Nomoat) -> None:
    done = program("show", "alpaca-7b")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    at = lines.index("commercial use: no")
    assert [line.split(":")[0] for line in lines[at + 1 : at + 5]] == [
        "  because of alpaca-7b itself",
        "  because of base llama-7b",
        "  because of data Alpaca data (52K instructions)",
        "  because of teacher text-davinci-003",
    ]
    assert "    source: tatsu-lab/stanford_alpaca @ 761dc5b, DATA_LICENSE" in lines


def test_show_marks_what_is_not_confirmed(nomoat: Nomoat) -> None:
    assert "    source, UNCONFIRMED: Hugging Face Qwen/Qwen2.5-7B-Instruct" in nomoat("show", "qwen2.5-7b").stdout.splitlines()


def test_show_of_a_file_that_only_a_mirror_has_names_the_file(nomoat: Nomoat) -> None:
    out = nomoat("show", "gemma3-270m").stdout
    assert "file: gemma-3-270m-q4_k_m.gguf, from NOMOAT_MIRROR only, 253 MB, sha256 a5fd3b62230aa5ec…" in out


def test_show_of_a_cloud_reference_gives_its_price(nomoat: Nomoat) -> None:
    out = nomoat("show", "openai:gpt-4o-mini").stdout
    assert "price: $0.15 in, $0.60 out per million tokens (as of 2024-07; " in out
    assert "prompts to `openai:gpt-4o-mini` leave this machine" in out


@pytest.mark.parametrize(("licence", "commercial"), [("own", "yes"), ("cc-by-nc-4.0", "no")])
def test_show_of_a_tuned_model_reads_its_chain(
    licence: str, commercial: str, empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]
) -> None:
    tuned(licence)
    done = nomoat("show", "openllama-3b+후기")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"commercial use: {commercial}" in done.stdout.splitlines()
    assert any(line.startswith("  data 후기.csv: ") for line in done.stdout.splitlines())
    assert json.loads(nomoat("show", "openllama-3b+후기", "--json").stdout)["licence"]["commercial"] == commercial


def test_show_of_an_adapter_on_another_base_joins_the_terms_of_both(
    empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]
) -> None:
    tuned("own")
    done = nomoat("show", "alpaca-7b+후기", "--json")
    found = json.loads(done.stdout)["licence"]
    names = {link["name"] for link in found["links"]}
    assert found["commercial"] == "no" and {"alpaca-7b", "llama-7b", "openllama-3b", "후기.csv"} <= names
    other = nomoat("show", "other.gguf+후기", "--json")
    assert json.loads(other.stdout)["licence"]["commercial"] == "unknown"


def test_show_of_an_adapter_by_its_path_reads_its_chain(
    empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path], tmp_path: Path
) -> None:
    elsewhere = tuned("cc-by-nc-4.0").rename(tmp_path / "mine")
    (elsewhere / "adapter_config.json").write_text("{}")
    done = nomoat("show", f"openllama-3b+{elsewhere}")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"adapter: {elsewhere}" in done.stdout.splitlines() and "commercial use: no" in done.stdout.splitlines()


def test_an_adapter_named_alone_is_named_with_its_base(empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]) -> None:
    folder = tuned("own")
    (folder / "adapter_config.json").write_text("{}")
    for verb in (["show"], ["run"]):
        done = nomoat(*verb, "후기", *["hi"] * (verb == ["run"]))
        assert (done.returncode, done.stderr.splitlines()[1]) == (1, "hint: that is an adapter: write `openllama-3b+후기`")
    (folder / "provenance.json").unlink()
    assert nomoat("show", "후기").stderr.splitlines()[1] == "hint: that is an adapter: write `BASE+후기`"


@pytest.mark.parametrize(("data", "is_own"), [("후기.csv", True), ("tasks.jsonl", False)])
def test_terms_of_the_data_are_told_unless_a_model_wrote_it(
    nomoat: Nomoat, tuned: Callable[[str], Path], data: str, is_own: bool
) -> None:
    """Its chain has a link for the data, `후기.csv`, where somebody's terms are on it."""
    path = tuned("own") / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_file": data, "data_licence": "own"}))
    told = nomoat("show", "openllama-3b+후기").stdout.splitlines()
    assert (f"data_file: {data}" in told, "data_licence: own" in told) == (True, is_own)


def test_the_question_that_show_has_as_json_is_an_instruction_that_asks_it(
    nomoat: Nomoat, tuned: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tuned("own") / "provenance.json"
    assert json.loads(nomoat("show", "openllama-3b+후기", "--json").stdout)["question"] is None
    words = r'Say {"label": x} of C:\new.'
    told = {"task": {"instruction": words}, "data": {"labels": {"x": 1, "y": 1}, "question": kept_question(["x", "y"], words)}}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    question = json.loads(nomoat("show", "openllama-3b+후기", "--json").stdout)["question"]
    assert question == words + "\n\nText: {text}\nLabel:"
    table = tmp_path / "t.csv"
    table.write_text("text,label\na,x\nb,y\n")
    suite = load_suite(table, input_column="text", label_column="label", instruction=question, models=["openllama-3b+후기"])
    assert suite.examples[0].messages[0].content == question[: -len("{text}\nLabel:")] + "a\nLabel:" and suite.notes == ()


@pytest.mark.parametrize("licence", [{"links": []}, [1], None, {"links": [{"conditions": []}]}])
def test_show_of_a_damaged_licence_chain_names_its_key(
    empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path], licence: object
) -> None:
    path = tuned("own") / "provenance.json"
    path.write_text(json.dumps({"licence": licence}))
    done = nomoat("show", "openllama-3b+후기")
    assert done.stderr == f"error: `{path}` holds no licence chain under `licence`\nhint: tune the adapter again\n"


def test_show_of_a_broken_provenance_says_which_file(empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]) -> None:
    tuned("own")
    path = empty_home / "adapters" / "후기" / "provenance.json"
    path.write_text("{}")
    done = nomoat("show", "openllama-3b+후기")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: `{path}` holds no licence chain under `licence`\nhint: tune the adapter again\n"


@pytest.mark.parametrize(
    ("ref", "error", "hint"),
    [
        ("openllama-3b+nothing", "no adapter `nothing`", "there are no adapters yet; `nomoat tune` makes one"),
        (HUB, f"`{HUB}` is not in the catalogue and not on this disk", f"nomoat pull {HUB}"),
        ("gemma3-270", "no model is called `gemma3-270`", "did you mean `gemma3-270m`"),
        ("./model.gguf", "no file at `./model.gguf`", "check the path, or see what there is with `nomoat models`"),
        ("auto", "`auto` is no model: it chooses one for each question", "`nomoat route policy` says which, and when"),
        ("fake:", "`fake:` names the engine of tests, and no model", "`nomoat models` lists"),
        ("stored:a/b", "`stored:a/b` names answers given before, and no model", "`nomoat models` lists"),
        ("http://x/v1#m+n", "`http://x/v1#m+n` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
        ("http://x/v1#m.gguf", "`http://x/v1#m.gguf` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
        ("https://x/v1#m", "`https://x/v1#m` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
        (
            "http://x/m.gguf",
            "`http://x/m.gguf` is no address that a file is pulled from: it begins with http:",
            "fetch the file yourself",
        ),
        ("https://x/m.bin", "`https://x/m.bin` names no GGUF file", "the address has to end in .gguf"),
        ("openai:zzz", "`openai:zzz` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
        ("openai", "`openai` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
    ],
)
def test_show_of_what_is_not_there_says_what_to_do(ref: str, error: str, hint: str, nomoat: Nomoat) -> None:
    done = nomoat("show", ref)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {error}\nhint: {hint}")


def test_show_knows_the_home_folder_by_its_sign(tiny_gguf: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    be_at_home_in(tiny_gguf.parent, monkeypatch)
    assert nomoat("show", f"~/{tiny_gguf.name}").stdout.splitlines()[0] == str(tiny_gguf)


def test_a_file_s_name_for_itself_is_one_line_and_no_verdict(tmp_path: Path, nomoat: Nomoat) -> None:
    called = "m\ncommercial use: yes\r\nchain:\u2028x\x85y\x1b[2K"
    path = write_tiny_gguf(tmp_path / "m.gguf", called=called)
    lines = nomoat("show", str(path)).stdout.splitlines()
    assert lines[3].startswith("says of itself: m commercial use: yes chain: x y[2K; ")
    assert [line for line in lines if line.startswith("commercial use")] == ["commercial use: unknown, in part unconfirmed"]
    assert json.loads(nomoat("show", str(path), "--json").stdout)["says"]["general.name"] == called


def test_small_prices_have_no_exponent(empty_home: Path, nomoat: Nomoat) -> None:
    empty_home.mkdir()
    (empty_home / "prices.toml").write_text(
        '[[price]]\napi = "openai:gpt-4o-mini"\ninput = 0.00001\noutput = 123456\nas_of = "2026-11"\nsource = "own"\n'
    )
    out = nomoat("show", "openai:gpt-4o-mini").stdout
    assert "price: $0.00001 in, $123,456.00 out per million tokens (as of 2026-11; " in out


AT_ONCE = "where 24 tokens or more are read at once"
BROKEN = "8 bits would break the bound of this quality, width or family"
GATES = "gate and up of the last 2 layers in bf16"
ROUNDED = "weights are rounded to 8 bits, with a scale a row for each"


@pytest.mark.parametrize(
    ("by_amx", "has_panels", "told", "narrow", "prompts"),
    [
        (True, True, 64, 768, f"prompts: bf16 (by AMX, {AT_ONCE}: {BROKEN})"),
        (True, True, 0, 768, f"prompts: bf16 (by AMX, {AT_ONCE}: {BROKEN})"),
        (True, True, 0, 1, f"prompts: int8 (by AMX, {AT_ONCE}: {ROUNDED} 256 columns; {GATES})"),
        (False, True, 0, 1, f"prompts: int8 (by VNNI, {AT_ONCE}: {ROUNDED} 128 columns)"),
        (False, True, 0, 768, f"prompts: int8 (by VNNI, {AT_ONCE.replace('24', '48')}: {ROUNDED} 32 columns)"),
        (False, False, 0, 768, "prompts: codes (the form of answers)"),
    ],
)
def test_show_says_how_the_passes_compute_that_nomoat_does_itself(
    by_amx: bool, has_panels: bool, told: int, narrow: int, prompts: str, tiny_gguf: Path, nomoat: Nomoat,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(step_tables, "BY_AMX", by_amx)
    monkeypatch.setattr(step_tables, "HAS_PANELS", has_panels)
    monkeypatch.setattr(step_tables, "NARROW", narrow)
    monkeypatch.setattr(layout, "chunk_told", lambda stored, architecture: told)
    monkeypatch.setenv("NOMOAT_THREADS", "2")
    out = nomoat("show", str(tiny_gguf)).stdout
    assert (
        "computed with: engine native (nomoat's own passes; OpenVINO has no part in them), threads 2 (NOMOAT_THREADS), "
        "inputs 8 bits (with a scale for each 32), kv_cache i8 and i8 (of keys and values, with a scale for each head of a token)\n"
    ) in out
    assert f"\n{prompts}" in out


def test_show_says_that_a_mixture_s_prompts_are_in_bf16_by_amx(
    tmp_path: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c"}))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(step_tables, "BY_AMX", True)
    monkeypatch.setattr(step_tables, "NARROW", 1)
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["qwen3moe"], make_model(MIXTURES["qwen3moe"]))
    expected = f"\nprompts: bf16 (by AMX, {AT_ONCE}: 8 bits were measured of no mixture of experts)"
    assert expected in nomoat("show", str(path)).stdout


def test_show_says_how_openvino_computes_all_other_models(tiny_gguf: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"sse2"}))
    out = nomoat("show", str(tiny_gguf)).stdout
    assert "inference_precision_hint f32 (this CPU has no bf16), dynamic_" in out
    assert "\nprompts: " not in out  # read in the form that answers are written in
    assert "prompts" not in json.loads(nomoat("show", str(tiny_gguf), "--json").stdout)["layout"]


def test_show_says_that_what_optimum_intel_converts_runs(tmp_path: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "is_installed", lambda: True)
    _, folder = write_folder(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "olmo"}))
    lines = nomoat("show", str(folder)).stdout.splitlines()
    assert any(line.startswith("layout: ") and line.endswith("optimum-intel writes int8 rows)") for line in lines)
    assert not any(line.startswith("engine: cannot run") for line in lines)


@pytest.mark.data
def test_show_of_a_file_finds_its_card_by_its_sum(smollm2_gguf: Path, nomoat: Nomoat) -> None:
    facts = json.loads(nomoat("show", str(smollm2_gguf), "--json").stdout)
    assert (facts["card"], facts["parameters"], facts["runs_here"]) == ("smollm2-135m", 134_515_008, True)
