"""A named chat template, given to a model that has none: the adapter keeps it, and answers with it wherever it answers."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from pathlib import Path

import learning
import pytest
from learning import COLUMNS, facts_of, write_table
from reference import make_adapter
from tiny import write_tiny_gguf
from typer.testing import CliRunner

import nomoat
from nomoat import paths, references, responder
from nomoat.catalog import licences
from nomoat.cli import app
from nomoat.engine import templates
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import UnsupportedError, UsageError
from nomoat.hardware import Detected
from nomoat.records import Message, Request
from nomoat.tune import loop, prepare

pytestmark = pytest.mark.usefixtures("same_precision_everywhere")
SETTINGS = prepare.Settings(rank=2, epochs=1)
tune = functools.partial(learning.tune, settings=SETTINGS)
HI = Request(messages=(Message(role="user", content="hi"),), max_new_tokens=8)
FALCON_HI = Request(prompt="User: hi\n\nAssistant:", max_new_tokens=8)
KNOWN = ", ".join(templates.NAMED)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A model without a chat template."""
    return write_tiny_gguf(tmp_path / "bare.gguf", template=None)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "colours.csv", ("red", "blue"), "xy", num_rows=20)


def test_a_model_without_a_template_is_not_tuned_until_one_is_named(bare: Path, table: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        prepare.prepare(str(bare), table, **COLUMNS)
    assert caught.value.message == "this model has no chat template, and every lesson, a table's too, is learned as a chat"
    name_it = "name the one to learn, and to answer with, by --template NAME (in Python: `template`)"
    assert caught.value.hint == f"{name_it}: `chatml` fits its tokens; known are {KNOWN}"
    prepared = prepare.prepare(str(bare), table, template="falcon", **COLUMNS)
    assert prepared.template == Detected("falcon", "as asked")
    tokenizer = prepared.file.read_tokenizer()
    shown = tokenizer.decode(prepared.samples[0].tokens)
    assert shown.startswith("User: ") and shown.endswith("\n\nAssistant:red")


def test_an_unknown_name_is_an_error_that_lists_those_known(bare: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(bare), str(tmp_path / "none.csv"), "--dry-run", "--template", "koala"])
    assert isinstance(result.exception, UsageError)
    assert result.exception.message == "no chat template is called `koala`"
    assert result.exception.hint == f"known: {KNOWN}"


def test_what_was_tuned_with_a_template_answers_with_it_alone_and_beside_its_base(bare: Path, table: Path) -> None:
    folder = tune(bare, table, "mine", template="falcon")
    assert facts_of(folder)["task"]["template"] == "falcon"
    with responder.load(f"{bare}+mine") as alone:
        assert alone.template == Detected("falcon", "as it was tuned")
        assert alone.complete(HI).text == alone.complete(FALCON_HI).text
        assert alone.score(HI, ["red"]) == alone.score(FALCON_HI, ["red"])
    base, beside = responder.load_sharing([str(bare), f"{bare}+mine"])
    with base, beside:
        assert (base.template, beside.template) == (None, Detected("falcon", "as it was tuned"))
        assert beside.complete(HI).text == beside.complete(FALCON_HI).text
        assert beside.engine.count_tokens(HI) == beside.engine.count_tokens(FALCON_HI)
        with pytest.raises(UnsupportedError, match="this model has no chat template"):
            base.complete(HI)


def test_adapters_with_different_templates_share_their_base_s_weights(bare: Path) -> None:
    refs = []
    for name in ("falcon", "vicuna_v1.1"):
        folder = make_adapter(paths.adapters() / name, bare)
        (folder / "provenance.json").write_text(
            json.dumps({"task": {"template": name}, "licence": licences.as_dict(licences.chain(None))})
        )
        refs.append(f"{bare}+{name}")
    one, other = responder.load_sharing(refs)
    with one, other:
        assert one.engine.count_tokens(HI) == one.engine.count_tokens(FALCON_HI) < other.engine.count_tokens(HI)
        stop = one.complete(FALCON_HI).text[3:6]
        one.engine.tokenizer.stops = (stop,)  # type: ignore[attr-defined]
        assert one.complete(HI).text == one.complete(FALCON_HI).text.partition(stop)[0]


def test_one_asked_for_goes_before_the_adapter_s_and_that_before_the_file_s(tiny_gguf: Path) -> None:
    folder = make_adapter(paths.adapters() / "mine", tiny_gguf)
    (folder / "provenance.json").write_text(json.dumps({"task": {"template": "falcon"}}))
    files = references.find_files(f"{tiny_gguf}+mine")
    assert files.read_tokenizer(GGUFFile(tiny_gguf)).chat_template == templates.NAMED["falcon"].text
    assert files.template(asked="gemma", own="own") == Detected("gemma", "as asked")
    assert references.find_files(str(tiny_gguf)).template(own="own") is None


def test_the_one_named_for_models_without_any_goes_before_no_other(bare: Path, tiny_gguf: Path) -> None:
    assert references.find_files(str(bare)).template(own=None, fallback="gemma") == Detected("gemma", "as asked: it has none")
    assert references.find_files(str(tiny_gguf)).template(own="own", fallback="gemma") is None
    folder = make_adapter(paths.adapters() / "mine", bare)
    (folder / "provenance.json").write_text(json.dumps({"task": {"template": "falcon"}}))
    tuned = references.find_files(f"{bare}+mine").template(own=None, fallback="gemma")
    assert tuned == Detected("falcon", "as it was tuned")


def test_a_base_without_a_template_is_measured_beside_what_was_tuned_of_it(bare: Path, table: Path) -> None:
    tune(bare, table, "mine", template="falcon")
    command = ["duel", f"{bare}+mine", str(bare), "--suite", str(table), "--input-column", "text", "--label-column", "label", "--json"]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, UnsupportedError) and "`--template falcon`" in str(refused.exception.hint)
    unknown = CliRunner().invoke(app, [*command, "--template", "koala"])
    assert isinstance(unknown.exception, UsageError) and unknown.exception.message == "no chat template is called `koala`"
    done = CliRunner().invoke(app, [*command, "--template", "falcon", "--all"])
    assert done.exit_code == 0, done.output
    notes = json.loads(done.stdout)["notes"]
    assert f"chat template of `{bare}+mine`: falcon, as it was tuned" in notes
    assert f"chat template of `{bare}`: falcon, as asked: it has none" in notes
    by_itself = nomoat.evaluate(str(bare), table, template="falcon", **COLUMNS)
    assert len(by_itself) == 20


def test_a_template_that_is_not_used_is_said(tiny_gguf: Path, bare: Path, table: Path) -> None:
    def notes(model: Path, *arguments: str) -> list[str]:
        command = ["eval", str(model), str(table), "--input-column", "text", "--label-column", "label", "--json", *arguments]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return [note for note in json.loads(done.stdout)["notes"] if note.startswith("chat template")]

    not_used = f"chat template of `{tiny_gguf}`: its own; `falcon` is used only for models that have none"
    assert notes(tiny_gguf, "--template", "falcon") == [not_used]
    assert notes(tiny_gguf) == []
    assert notes(bare, "--template", "falcon") == [f"chat template of `{bare}`: falcon, as asked: it has none"]


def test_an_interrupted_training_does_not_go_on_with_another_template(
    bare: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: loop.Run, batch: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Run, "_learn", interrupt)
        tune(bare, table, "mine", template="falcon")
    with pytest.raises(UsageError) as caught:
        tune(bare, table, "mine", template="gemma", resume=True)
    assert caught.value.message == "the interrupted training of `mine` was begun with template falcon, not gemma"
    tune(bare, table, "mine", template="falcon", resume=True)


def test_alpaca_data_gives_a_model_without_a_template_alpaca_s(bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": f"Add {n}.", "output": "3"} for n in range(4)]))
    nomoat.tune(str(bare), path, name="mine", **asdict(SETTINGS))
    with responder.load(f"{bare}+mine") as tuned:
        asked = Request(prompt=f"{ALPACA}### Instruction:\nhi\n\n### Response:")
        assert tuned.engine.count_tokens(HI) == tuned.engine.count_tokens(asked)


ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"


@pytest.mark.parametrize("own", [None, "{{ messages }}"])
def test_exports_hold_the_adapter_s_template_in_place_of_the_base_s(own: str | None, tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf", template=own)
    folder = make_adapter(paths.adapters() / "mine", base)
    (folder / "provenance.json").write_text(
        json.dumps({"task": {"template": "vicuna_v1.1"}, "licence": licences.as_dict(licences.chain(None))})
    )
    result = CliRunner().invoke(app, ["export", f"{base}+mine", "-o", str(tmp_path / "out"), "--form", "ollama"])
    assert result.exit_code == 0, result.output
    assert GGUFFile(tmp_path / "out" / "mine.gguf").metadata["tokenizer.chat_template"] == templates.NAMED["vicuna_v1.1"].text
    modelfile = (tmp_path / "out" / "Modelfile").read_text()
    assert "answers to the user's questions. USER: {{ end }}" in modelfile and " ASSISTANT:" in modelfile


def test_an_adapter_made_elsewhere_answers_with_its_base_s_template_and_unknown_terms(tiny_gguf: Path) -> None:
    make_adapter(paths.adapters() / "peft", tiny_gguf)
    with responder.load(f"{tiny_gguf}+peft") as model:
        assert model.template is None
        assert model.licence.startswith("unknown (")
