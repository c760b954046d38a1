"""What was written about a tuned adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nomoat import hub_folder
from nomoat.catalog import tuned
from nomoat.errors import BadFileError, UnknownModelError


def test_a_provenance_of_endless_brackets_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("[" * 100_000)
    with pytest.raises(BadFileError) as caught:
        tuned.provenance_of(tmp_path)
    assert caught.value.message.startswith(f"`{tmp_path / 'provenance.json'}` cannot be read")
    assert caught.value.hint == "tune the adapter again"


def test_an_adapter_by_its_path_is_that_one_whatever_is_known_by_its_name(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, lying = empty_home / "adapters" / "mine", tmp_path / "mine"
    for folder in (named, lying):
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert tuned.find_adapter("mine") == named
    assert tuned.find_adapter("./mine").resolve() == lying.resolve()
    assert tuned.find_adapter(str(lying)) == lying
    assert tuned.find_adapter("mine/").resolve() == lying.resolve()


def test_an_adapter_below_those_of_the_home_is_found_by_its_path_there(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "sub/deep"):
        folder = empty_home / "adapters" / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
        assert tuned.find_adapter(name) == tuned.find_adapter(f"{name}/") == folder


def test_of_a_folder_of_several_adapters_each_is_named(empty_home: Path, tmp_path: Path) -> None:
    """As PEFT saves a model with more than one."""
    for place in (empty_home / "adapters" / "several", tmp_path / "elsewhere"):
        for name in ("one", "two"):
            (place / name).mkdir(parents=True)
            (place / name / "adapter_config.json").write_text("{}")
    (tmp_path / "elsewhere" / "no adapter").mkdir()
    for given in ("several", str(tmp_path / "elsewhere")):
        with pytest.raises(UnknownModelError) as caught:
            tuned.find_adapter(given)
        both = [str(Path(given) / name) for name in ("one", "two")]
        assert (caught.value.message, caught.value.hint) == (
            f"`{given}` holds no adapter itself", f"name one in it: `{both[0]}`, `{both[1]}`",
        )  # fmt: skip
        assert all(tuned.find_adapter(name).is_dir() for name in both)


def test_of_thousands_of_adapters_the_nearest_are_named(empty_home: Path) -> None:
    for number in range(100):
        folder = empty_home / "adapters" / f"customer-{number}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UnknownModelError) as caught:
        tuned.find_adapter("custmer-57")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("adapters here: customer-57, ")
    assert caught.value.hint.endswith(" and 88 more")


def test_a_name_too_long_for_a_file_is_no_adapter(empty_home: Path) -> None:
    assert tuned.place_of("a" * 300) is None


@pytest.mark.parametrize(
    ("data", "question"),
    [({"question": "Kept: {text}", "labels": {"spam": 7}}, "Kept: {text}"), ({"question": None}, None), ({}, None)],
)
def test_the_question_of_a_table_is_the_one_that_was_kept(data: dict[str, Any], question: str | None) -> None:
    assert tuned.question_of({"task": {"instruction": "Which colour?"}, "data": data}) == question


def test_the_instruction_is_that_of_the_last_table() -> None:
    before = {"instruction": "Is {text} spam?"}
    assert tuned.instruction_of({"task": {"instruction": None}, "start": before}) == "Is {text} spam?"
    assert tuned.instruction_of({"task": {"instruction": "Which colour?"}, "start": before}) == "Which colour?"
    assert tuned.instruction_of({}) is None


def test_a_lora_in_gguf_is_named_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "lora.gguf"
    with pytest.raises(UnknownModelError, match="no adapter `"):
        tuned.find_adapter(str(file))
    file.write_bytes(b"GGUF")
    assert tuned.find_adapter(str(file)) == file == hub_folder.adapter_weights(file)


def test_one_file_of_an_adapter_says_to_name_its_folder(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(UnknownModelError) as caught:
        tuned.find_adapter(str(weights))
    assert (caught.value.message, caught.value.hint) == (f"`{weights}` is one file of an adapter", f"name its folder: `{tmp_path}`")
