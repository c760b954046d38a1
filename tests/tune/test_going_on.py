"""`tune BASE+NAME`: what an adapter has learned is gone on from, and where it came from stays known."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import learning
import pytest
import torch
from homes import write_policy
from learning import COLUMNS, facts_of, stopping_at, weights
from tiny import ADAPTED, LAYERS, TEMPLATE, write_adapter, write_tiny_gguf
from typer.testing import CliRunner

import nomoat
from nomoat import commands, paths, references
from nomoat.catalog import datasets
from nomoat.cli import app
from nomoat.engine import arch as architectures
from nomoat.engine import template_filters
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import UnsupportedError, UsageError
from nomoat.tune import adapter, prepare

pytestmark = pytest.mark.usefixtures("same_precision_everywhere")
COMMAND_COLUMNS = ["--input-column", "text", "--label-column", "label"]
SETTINGS = prepare.Settings(rank=4, layers=2, epochs=0.5, learning_rate=5e-3)  # 7 steps
A_STEP = prepare.Settings(epochs=1e-3, learning_rate=1e-9)
tune = functools.partial(learning.tune, settings=SETTINGS)
write_table = functools.partial(learning.write_table, num_rows=60)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "colours.csv")


def prepared(ref: str, table: Path, **options: Any) -> prepare.Prepared:
    return prepare.prepare(ref, table, **COLUMNS, **options)


def test_it_begins_with_what_the_adapter_has_learned(tiny_gguf: Path, table: Path) -> None:
    first = tune(tiny_gguf, table, "first", settings=prepare.Settings(rank=4, layers=2, epochs=2, learning_rate=5e-3))
    second = tune(f"{tiny_gguf}+first", table, "second", settings=A_STEP)
    was, now = (weights(folder) for folder in (first, second))
    assert was.keys() == now.keys() and all(torch.allclose(was[name], now[name], atol=1e-7) for name in was)
    before, after = facts_of(first), facts_of(second)
    assert after["metrics"]["validation_loss_before"] == pytest.approx(before["metrics"]["validation_loss_after"], rel=1e-4)
    assert (after["settings"]["rank"], after["settings"]["layers"]) == (4, 2)
    third = facts_of(tune(f"{tiny_gguf}+first", table, "third", settings=prepare.Settings(epochs=2, learning_rate=5e-3)))
    assert third["metrics"]["validation_loss_after"] < 0.9 * before["metrics"]["validation_loss_after"]


def test_it_is_asked_and_answers_with_the_template_that_lies_beside_the_adapter(tiny_gguf: Path, table: Path) -> None:
    """As one that was made elsewhere has it. What learned further has it, too."""
    elsewhere = tune(tiny_gguf, table, "first", settings=A_STEP)
    (elsewhere / "provenance.json").unlink()
    text, with_tools = "T {{ messages[0].content }}>", "{{ tools }}{{ messages }}"
    (elsewhere / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "default", "template": text}, {"name": "tool_use", "template": with_tools}]})
    )
    (sample, *_) = prepared(f"{tiny_gguf}+{elsewhere}", table).samples
    tokenizer = GGUFFile(tiny_gguf).read_tokenizer()
    assert tokenizer.decode(sample.tokens).startswith("T ")
    assert not tokenizer.decode(prepared(str(tiny_gguf), table).samples[0].tokens).startswith("T ")
    second = tune(f"{tiny_gguf}+{elsewhere}", table, "second", settings=A_STEP)
    brought = references.find_files(f"{tiny_gguf}+{second}").brought
    assert brought is not None and (brought.text, brought.with_tools) == (text, with_tools)


def test_an_adapter_can_be_gone_on_from_in_its_own_place(tiny_gguf: Path, table: Path) -> None:
    tune(tiny_gguf, table, "colours", settings=A_STEP)
    with pytest.raises(UsageError, match="there is an adapter `colours` already"):
        tune(f"{tiny_gguf}+colours", table, "colours", settings=A_STEP)
    again = tune(f"{tiny_gguf}+colours", table, "colours", settings=A_STEP, replace=True)
    assert facts_of(again)["start"]["adapter"] == "colours"


def test_all_it_was_made_from_is_told_back_to_the_base(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    first = tune(tiny_gguf, table, "first", settings=A_STEP, data_licence="cc-by-nc-4.0")
    tune(f"{tiny_gguf}+first", write_table(tmp_path / "more.csv", texts="abc"), "second", settings=A_STEP)
    third = facts_of(tune(f"{tiny_gguf}+second", write_table(tmp_path / "most.csv", texts="def"), "third", settings=A_STEP))
    start = third["start"]
    assert (start["adapter"], start["data_file"], start["num_lessons"]) == ("second", "more.csv", 60)
    assert start["start"]["sha256"] == paths.sha256_of(first / "adapter_model.safetensors")
    assert start["start"]["data_sha256"] == paths.sha256_of(table) and start["start"]["start"] is None
    links = [(link["role"], link["name"], link["licence"]) for link in third["licence"]["links"][1:]]
    assert links == [("data", "colours.csv", "cc-by-nc-4.0"), ("data", "more.csv", "own"), ("data", "most.csv", "own")]
    assert third["licence"]["commercial"] == "no"


def test_the_labels_and_the_instruction_it_knows_are_asked_for_as_before(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    tune(tiny_gguf, table, "first", settings=A_STEP)
    only_red = write_table(tmp_path / "red.csv", ["red"])
    assert prepared(f"{tiny_gguf}+first", only_red).data.labels == ("blue", "green", "red")
    tune(f"{tiny_gguf}+first", only_red, "second", settings=A_STEP)
    with_white = write_table(tmp_path / "white.csv", ["red", "white"])
    assert prepared(f"{tiny_gguf}+second", with_white).data.labels == ("blue", "green", "red", "white")
    done = CliRunner().invoke(app, ["tune", f"{tiny_gguf}+second", str(with_white), "--dry-run", *COMMAND_COLUMNS])
    assert "labels asked for without a row to learn from: blue, green\n" in done.stderr
    tune(tiny_gguf, table, "asked", settings=A_STEP, instruction="Which colour?")
    assert prepared(f"{tiny_gguf}+asked", only_red).data.lessons[0].messages[0].content.startswith("Which colour?")


def test_the_instruction_of_a_table_is_kept_while_it_learns_from_conversations(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    tune(tiny_gguf, table, "asked", settings=A_STEP, instruction="Which colour?")
    chats = tmp_path / "chats.jsonl"
    chats.write_text('{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n' * 2)
    folder = nomoat.tune(f"{tiny_gguf}+asked", chats, name="chats", **asdict(A_STEP))
    assert facts_of(folder)["task"]["instruction"] is None
    assert prepared(f"{tiny_gguf}+chats", table).data.lessons[0].messages[0].content.startswith("Which colour?")


@pytest.mark.parametrize(
    ("learned", "spelled"),
    [(r"Review: {text}\nColour?", "Review: {text}\nColour?"), ("Which colour?", r"Which colour?\n\nText: {text}\nLabel:")],
)
def test_an_adapter_is_gone_on_from_in_any_spelling_of_what_it_learned(
    tiny_gguf: Path, table: Path, learned: str, spelled: str
) -> None:
    question = facts_of(tune(tiny_gguf, table, "first", settings=A_STEP, instruction=learned))["data"]["question"]
    assert prepared(f"{tiny_gguf}+first", table, instruction=spelled).survey.question == question


def test_what_was_held_out_is_held_out_again_in_any_order_and_with_any_seed(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    def sides(path: Path, seed: int = 0) -> list[set[bytes]]:
        found = prepared(str(tiny_gguf), path, settings=prepare.Settings(seed=seed)).split
        return [{sample.digest for sample in side} for side in found]

    learned, held_out = sides(table)
    assert (len(learned), len(held_out)) == (54, 6) and not learned & held_out
    first, *rows = table.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([first, *reversed(rows)]))
    assert sides(other, seed=1) == [learned, held_out]
    other.write_text("\n".join([first, *rows, *rows, *rows[:20]]))
    learned, held_out = sides(other)
    assert held_out and not learned & held_out


def test_other_weights_than_it_was_learned_beside_are_named(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    tune(tiny_gguf, table, "first", settings=A_STEP)
    other = write_tiny_gguf(tmp_path / "other.gguf", type_name="Q8_0")
    done = CliRunner().invoke(app, ["tune", f"{other}+first", str(table), "--dry-run", *COMMAND_COLUMNS])
    beside = f"tiny.gguf (sha256 {paths.sha256_of(tiny_gguf)[:16]}…)"
    assert f"note: it was learned beside {beside}, other weights than these" in " ".join(done.stderr.split())
    facts = facts_of(tune(f"{other}+first", table, "second", settings=A_STEP))
    assert facts["start"]["base_sha256"] == paths.sha256_of(tiny_gguf) and facts["base_sha256"] == paths.sha256_of(other)


@pytest.mark.parametrize(("name", "asked", "there"), [("rank", 8, 4), ("layers", 1, 2)])
def test_another_form_than_it_has_is_refused(tiny_gguf: Path, table: Path, name: str, asked: int, there: int) -> None:
    tune(tiny_gguf, table, "first", settings=prepare.Settings(rank=4, layers=2, epochs=1e-3))
    with pytest.raises(UsageError) as caught:
        prepared(f"{tiny_gguf}+first", table, settings=prepare.Settings(**{name: asked}))
    assert caught.value.message == f"{name} is {asked}, and the adapter `first` has {there}"


@pytest.mark.parametrize(
    ("name", "asked", "there"), [("instruction", "What colour?", "Which colour?"), ("template", "vicuna_v1.1", "chatml")]
)
def test_other_words_than_it_has_are_refused(tiny_gguf: Path, table: Path, name: str, asked: str, there: str) -> None:
    tune(tiny_gguf, table, "first", settings=A_STEP, **{name: there})
    assert prepared(f"{tiny_gguf}+first", table, **{name: there}).options[name] == there
    with pytest.raises(UsageError) as caught:
        prepared(f"{tiny_gguf}+first", table, **{name: asked})
    assert caught.value.message == f"{name} is {asked}, and the adapter `first` has {there}"
    assert caught.value.hint == f"leave out --{name} (in Python: `{name}`), or tune the base"
    tune(tiny_gguf, table, "bare", settings=A_STEP)
    with pytest.raises(UsageError, match="and the adapter `bare` has none of its own"):
        prepared(f"{tiny_gguf}+bare", table, **{name: asked})


def test_an_adapter_made_elsewhere_is_gone_on_from_if_it_has_our_form(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    file = GGUFFile(tiny_gguf)
    parts = {part: file.tensor(f"blk.0.{name}.weight").shape for part, name in architectures.find("llama").projections.items()}
    folder = write_adapter(tmp_path / "elsewhere", parts=parts)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2}))  # a quarter of our scale
    words = {"instruction": "Which colour?", "template": "chatml"}  # it has none that are known
    found = tune(f"{tiny_gguf}+{folder}", table, "here", settings=A_STEP, **words)
    was, now = (weights(one) for one in (folder, found))
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
    assert torch.allclose(now[name], was[name] / 4, atol=1e-6)
    assert facts_of(found)["licence"]["commercial"] == "unknown" and facts_of(found)["start"]["data_file"] is None


def test_an_adapter_of_another_form_is_refused_and_told_why(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    some = write_adapter(tmp_path / "some", parts={"mlp.down_proj": ADAPTED["mlp.down_proj"]})
    low = write_adapter(tmp_path / "low", layers=range(LAYERS - 1))
    for folder in (some, low):
        with pytest.raises(UnsupportedError, match=f"a training cannot go on from `{folder.name}`: it differs at `model.layers"):
            prepared(f"{tiny_gguf}+{folder}", table)


def test_it_is_resumed_with_the_adapter_it_began_with_only(tiny_gguf: Path, table: Path) -> None:
    tune(tiny_gguf, table, "first")
    options = {"settings": prepare.Settings(epochs=0.5, learning_rate=5e-3)}
    whole = weights(tune(f"{tiny_gguf}+first", table, "whole", **options))
    with pytest.raises(KeyboardInterrupt):
        tune(f"{tiny_gguf}+first", table, "parts", on_progress=stopping_at(3), **options)
    parts = weights(tune(f"{tiny_gguf}+first", table, "parts", resume=True, **options))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(KeyboardInterrupt):
        tune(f"{tiny_gguf}+first", table, "parts", on_progress=stopping_at(3), replace=True, **options)
    tune(tiny_gguf, table, "first", settings=prepare.Settings(rank=4, layers=2, epochs=1e-3), replace=True)
    with pytest.raises(UsageError, match="was begun with start first"):
        tune(f"{tiny_gguf}+first", table, "parts", resume=True, replace=True, **options)


def test_a_validation_file_that_was_changed_is_no_longer_the_same_training(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    held_out = write_table(tmp_path / "held_out.csv", texts="abc")
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, "parts", validation=held_out, on_progress=stopping_at(3))
    write_table(held_out, texts="def")
    with pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table, "parts", validation=held_out, resume=True)
    assert caught.value.message == "`held_out.csv` has changed since the interrupted training of `parts` began"
    assert caught.value.hint == "give it as it was, or start again without --resume (in Python: `resume`)"
    with pytest.raises(UsageError, match="was begun with validation_sha256"):
        tune(tiny_gguf, table, "parts", validation=write_table(tmp_path / "others.csv", texts="def"), resume=True)
    write_table(table, texts="uvw")
    with pytest.raises(UsageError, match=r"^`colours\.csv` has changed since"):
        tune(tiny_gguf, table, "parts", validation=write_table(held_out, texts="abc"), resume=True)


def interrupted(base: Path, table: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        tune(base, table, "parts", on_progress=stopping_at(1), **options)


def test_a_training_of_rows_is_resumed_with_the_same_rows_and_keeps_none_of_them(tiny_gguf: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{'xyz'[n % 3]} {n}", "label": learning.COLOURS[n % 3]} for n in range(90)]
    settings: dict[str, Any] = {"rank": 4, "layers": 2, "epochs": 1}
    whole = nomoat.tune(str(tiny_gguf), rows, name="whole", **settings, **COLUMNS)

    with pytest.raises(KeyboardInterrupt):
        nomoat.tune(str(tiny_gguf), iter(rows), name="parts", on_progress=stopping_at(3), **settings, **COLUMNS)
    with pytest.raises(UsageError, match=r"^`rows` has changed since the interrupted training of `parts` began"):
        nomoat.tune(str(tiny_gguf), rows[1:], name="parts", resume=True, **settings, **COLUMNS)
    parts = nomoat.tune(str(tiny_gguf), iter(rows), name="parts", resume=True, **settings, **COLUMNS)
    assert all(torch.equal(weights(parts)[name], learned) for name, learned in weights(whole).items())
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in rows), newline="\n")
    facts = facts_of(parts)
    assert (facts["data_file"], facts["data_sha256"]) == ("rows", paths.sha256_of(lines))
    assert "x 0" not in json.dumps(facts)


def test_a_training_that_keeps_what_the_test_has_is_not_resumed_as_one_that_does_not(tiny_gguf: Path, tmp_path: Path) -> None:
    """The validation file is held out by it, too: losses before and after would be of different lessons."""
    table, held_out = (write_table(tmp_path / f"{name}.csv", texts=name) for name in ("xyz", "abc"))
    test = tmp_path / "test.csv"
    test.write_text("text,label\na 0,red\n")
    options = {"validation": held_out, "test": test}
    interrupted(tiny_gguf, table, **options)
    with pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table, "parts", keep_shared=True, resume=True, **options)
    assert caught.value.message == "the interrupted training of `parts` was begun with keep_shared False, not True"


def test_terms_of_the_data_that_became_known_meanwhile_change_no_weight_and_are_those_of_the_adapter(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No argument would have made it go on. What the user stated besides are not the data's terms."""
    interrupted(tiny_gguf, table)
    bank = datasets.dataset("banking77")
    file = replace(bank.files[0], sha256=paths.sha256_of(table))
    monkeypatch.setattr(datasets, "datasets", lambda: {"banking77": replace(bank, files=(file,))})
    facts = facts_of(tune(tiny_gguf, table, "parts", resume=True, data_licence="mit"))
    assert facts["data_licence"] == "cc-by-4.0"
    assert [link["licence"] for link in facts["licence"]["links"] if link["role"] == "data"] == ["cc-by-4.0", "mit"]


def test_a_checkpoint_of_another_version_is_refused_though_it_says_all_that_this_one_does(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on: that another version computes the same, nobody knows."""
    base = write_tiny_gguf(table.with_name("tiny one.gguf"))
    interrupted(base, table)
    monkeypatch.setattr(prepare, "__version__", "99.0")
    with pytest.raises(UsageError) as caught:
        tune(base, table, "parts", resume=True)
    assert caught.value.message == f"the interrupted training of `parts` was begun with nomoat {nomoat.__version__}, not 99.0"
    command = commands.as_line(["nomoat", "rm", "tiny one.gguf+parts"])
    size = paths.shown_size(paths.bytes_below(adapter.checkpoint_folder(paths.adapters() / "parts")))
    start_again = "start again without --resume (in Python: `resume`)"
    assert caught.value.hint == f"{start_again}; `{command}` removes what was left of it, {size}"
    (paths.adapters() / "parts").mkdir()  # `rm` would remove it, too
    with pytest.raises(UsageError) as caught:
        tune(base, table, "parts", resume=True, replace=True)
    assert caught.value.hint == start_again


def test_a_training_of_other_tokens_is_not_resumed(tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template writes the date, as Llama 3.2's does, and it is the next day."""

    class Clock(datetime):
        today = datetime(2026, 11, 28, 23, 59)

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return cls.today

    monkeypatch.setattr(template_filters, "datetime", Clock)
    base = write_tiny_gguf(tmp_path / "dated.gguf", template=f"{{{{ strftime_now('%d %b %Y') }}}}{TEMPLATE}")
    interrupted(base, table)
    Clock.today = datetime(2026, 11, 29)
    with pytest.raises(UsageError) as caught:
        tune(base, table, "parts", resume=True)
    assert caught.value.message == (
        "the interrupted training of `parts` was begun with other tokens, or with other lessons held out, though its files and "
        "settings are the same"
    )
    Clock.today = datetime(2026, 11, 28)
    assert tune(base, table, "parts", resume=True).name == "parts"


def test_a_file_that_is_gone_before_the_training_ends_costs_nothing(tiny_gguf: Path, table: Path) -> None:
    sha256 = paths.sha256_of(table)
    folder = tune(tiny_gguf, table, "colours", on_progress=lambda progress: table.unlink(missing_ok=True))
    assert facts_of(folder)["data_sha256"] == sha256


def test_the_command_says_what_it_goes_on_from(tiny_gguf: Path, table: Path) -> None:
    tune(tiny_gguf, table, "first", settings=A_STEP)
    arguments = [f"{tiny_gguf}+first", str(table), "--name", "second", "--epochs", "0.1"]
    done = CliRunner().invoke(app, ["tune", *arguments, *COMMAND_COLUMNS])
    assert done.exit_code == 0
    assert "goes on from the adapter `first`, which learned from colours.csv" in done.stderr
    question = "Classify the text. Answer with one of: blue, green, red.\n\nText: {text}\nLabel:"
    assert done.stderr.splitlines()[-3:] == [
        f"try it: {commands.as_line(['nomoat', 'run', f'{tiny_gguf}+second', '--as-tuned', 'x 0'])}",
        f"label a table: nomoat distil {tiny_gguf}+second --label new.csv --input-column text --out labelled.csv",
        f"asked in these words, with a text in place of {{text}}: {json.dumps(question)}",
    ]
    *_, result = (line for line in done.stderr.splitlines() if line.startswith("right word for word: "))
    metrics = facts_of(paths.adapters() / "second")["metrics"]
    assert result.endswith(f"; the commonest answer alone: {metrics['validation_right_commonest']}")


def test_run_asks_about_a_text_as_the_table_was_asked_where_it_is_told_to(tiny_gguf: Path, table: Path) -> None:
    ref = f"{tiny_gguf}+colours"
    folder = tune(tiny_gguf, table, "colours", settings=A_STEP, instruction="Which colour?")
    question = facts_of(folder)["data"]["question"]

    def run(*arguments: str, model: str = ref) -> Any:
        return json.loads(CliRunner().invoke(app, ["run", model, *arguments, "--json", "-n", "2"]).stdout)

    write_policy(f"local = {json.dumps(ref)}")
    whole, short, routed = run(question.replace("{text}", "x 1")), run("--as-tuned", " x 1 "), run("--as-tuned", "x 1", model="auto")
    for asked in (short, routed):
        assert (asked["text"], asked["usage"]["prompt_tokens"]) == (whole["text"], whole["usage"]["prompt_tokens"])
    assert short["usage"]["prompt_tokens"] > run("x 1")["usage"]["prompt_tokens"]
    told = [CliRunner().invoke(app, ["run", ref, "-n", "2", *more]).stderr for more in (["x 1"], ["x 1", "--as-tuned"])]
    assert [said.count(f"note: `{tiny_gguf.name}+colours` was tuned on a table, and asked in other words") for said in told] == [1, 0]
    shown = CliRunner().invoke(app, ["show", ref]).stdout
    assert f"asked in these words, with a text in place of {{text}}: {json.dumps(question)}" in shown.splitlines()


def test_the_words_of_a_table_are_not_asked_for_where_there_was_none(tiny_gguf: Path, tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    chats.write_text(f"{json.dumps({'messages': turns})}\n" * 20)
    done = CliRunner().invoke(app, ["tune", str(tiny_gguf), str(chats), "--name", "chats", "--epochs", "0.1"])
    assert done.stderr.splitlines()[-1] == f'try it: nomoat run {tiny_gguf}+chats "..."'
    assert "right word for word" not in done.stderr
    for ref in (f"{tiny_gguf}+chats", str(tiny_gguf), "fake:"):
        with pytest.raises(UsageError, match="asks in the words of a table, and nothing here says that") as found:
            CliRunner().invoke(app, ["run", ref, "x", "--as-tuned"], catch_exceptions=False)
        assert found.value.hint and "leave out `--as-tuned`" in found.value.hint
