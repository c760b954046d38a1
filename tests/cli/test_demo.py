"""`nomoat demo`: the whole story, on a tiny model in the real one's place and a small table in the data set's own form."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nomoat import paths
from nomoat.catalog import cards
from nomoat.catalog.datasets import dataset
from nomoat.cli import app
from nomoat.errors import NotWritableError, UsageError
from nomoat.judge.suites import load_suite, write_suite

demo = importlib.import_module("nomoat.cli.demo")  # `nomoat.cli.demo` itself is the command
RATED = "amazonReviewSnippets_GroundTruth.txt"


def write_ratings(folder: Path, count: int) -> Path:
    """Sentences of `count` reviews, two each: one clearly good or bad, one that says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {1: "i love it , it works well", -1: "it broke after a day"}
    lines = []
    for review in range(count):
        sign = 1 if review % 3 else -1
        lines += [f"{review}_1\t{sign * 2.5}\t{texts[sign]} , number {review} .", f"{review}_2\t0.1\tit came in a box ."]
    (folder / RATED).write_text("\r\n".join(lines), encoding="utf-8")
    return folder


def test_no_review_stands_on_both_sides_and_neutral_sentences_on_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_ratings(tmp_path / "data", 40)
    monkeypatch.setattr("nomoat.catalog.datasets.pull_dataset", lambda name, progress: folder)
    table, suite = demo._prepare_data()
    learned = table.read_text(encoding="utf-8")
    assert len(suite.examples) == 10 and learned.count("\n") == 31  # a header and thirty sentences
    assert "box" not in learned
    for example in suite.examples:
        sentence = example.messages[0].content.split("Text: ")[1].split("\n")[0]
        assert sentence not in learned
        assert example.target == ("positive" if "love" in sentence else "negative")
    assert (paths.home() / "suites" / "demo-reviews.toml").exists()


def test_a_report_that_cannot_be_written_is_refused_before_any_work(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_require_tune", lambda: None)
    with pytest.raises(UsageError) as refused:
        demo.demo(report=tmp_path)
    assert refused.value.message == f"`{tmp_path}` is a folder, and the report is a file"
    (tmp_path / "file").touch()
    with pytest.raises(NotWritableError):
        demo.demo(report=tmp_path / "file" / "demo.html")
    assert not empty_home.exists()


def test_an_adapter_and_a_suite_of_ones_own_are_not_written_over(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_require_tune", lambda: None)
    adapter, table = paths.adapters() / "demo-reviews", paths.data() / "vader-reviews" / "train.csv"
    adapter.mkdir(parents=True)
    for provenance in (None, {"data_sha256": "0" * 64}):
        if provenance is not None:
            (adapter / "provenance.json").write_text(json.dumps(provenance))
            with pytest.raises(UsageError) as untold:
                demo.demo()
            assert untold.value.message == (
                f"there is an adapter `demo-reviews` of which cannot be told whether a demo made it, for there is no `{table}`, "
                "and the demo would write over it"
            )
            table.parent.mkdir(parents=True)
            table.write_text("text,label\n")
        with pytest.raises(UsageError, match="there is an adapter `demo-reviews` that no demo made") as refused:
            demo.demo()
        assert refused.value.hint == (f"give its folder `{adapter}` another name, or remove it: nomoat rm smollm2-135m+demo-reviews")
    (adapter / "provenance.json").write_text(json.dumps({"data_sha256": paths.sha256_of(table)}))
    demo._require_own()

    suite = replace(load_suite(written_suite(empty_home)), name="demo-reviews")
    write_suite(replace(suite, source=dataset("vader-reviews").citation), paths.suites())
    demo._require_own()
    write_suite(suite, paths.suites(), replace=True)
    with pytest.raises(UsageError, match="there is a suite `demo-reviews` that no demo made"):
        demo.demo()


def test_a_suite_of_ones_own_without_a_description_or_in_a_folder_is_not_written_over_or_hidden(
    empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_require_tune", lambda: None)
    own = paths.suites() / "demo-reviews"
    own.mkdir(parents=True)
    for there in (own, own.with_suffix(".jsonl")):
        with pytest.raises(UsageError) as refused:
            demo.demo()
        assert refused.value.message == (
            "there is a suite `demo-reviews` that no demo made, and the demo would write over it, or hide it"
        )
        assert refused.value.hint == f"move it out of `{paths.suites()}`, or remove it: nomoat suites rm demo-reviews"
        if there.is_dir():
            there.rmdir()
            written_suite(paths.suites()).rename(there.with_suffix(".jsonl"))
    assert (paths.suites() / "demo-reviews.jsonl").exists()


def written_suite(folder: Path) -> Path:
    path = folder / "quiz.jsonl"
    path.write_text('{"input": "Who?", "target": "yes"}\n')
    return path


def test_minutes_without_end_are_refused_before_any_work(empty_home: Path) -> None:
    done = CliRunner().invoke(app, ["demo", "--minutes", "inf"])
    assert done.exit_code == 2 and "inf is not in the range" in done.output
    with pytest.raises(UsageError, match=r"--minutes is nan"):
        demo.demo(minutes=float("nan"))
    assert not empty_home.exists()


def test_a_duel_that_is_stopped_goes_on_by_itself_for_the_demo_would_tune_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nomoat.judge.duel.run_duel", stop)
    suite = replace(load_suite(written_suite(tmp_path)), name="demo-reviews")
    with pytest.raises(typer.Exit):
        demo._duel(suite, tmp_path / "demo.html")
    duel = "`nomoat duel smollm2-135m+demo-reviews smollm2-135m --suite demo-reviews --all`"
    assert capsys.readouterr().err.endswith(f"answers.sqlite; {duel} goes on from there\n")


def test_the_whole_story_ends_with_a_verdict_and_a_report(
    tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real model is pulled, asked, tuned and duelled in `test_docs.py`."""
    pulled = empty_home / "models" / demo.BASE / cards.card(demo.BASE).sources[0].file_name
    pulled.parent.mkdir(parents=True)
    pulled.symlink_to(tiny_gguf)
    monkeypatch.setattr("nomoat.catalog.pull.require_as_published", lambda *_: None)
    folder = write_ratings(tmp_path / "data", 120)
    monkeypatch.setattr("nomoat.catalog.datasets.pull_dataset", lambda name, progress: folder)
    demo.demo(minutes=0.05, report=tmp_path / "demo.html")
    shown = capsys.readouterr()
    for step in range(1, 6):
        assert f"[{step}/5]" in shown.err
    assert "30 items, accuracy" in shown.out and "smollm2-135m+demo-reviews" in shown.out
    assert "<svg" in (tmp_path / "demo.html").read_text(encoding="utf-8")
    provenance = json.loads((paths.adapters() / "demo-reviews" / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["data_licence"] == "mit" and provenance["metrics"]["steps"] >= 1
