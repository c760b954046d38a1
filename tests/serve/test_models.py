"""Models that come and go within a memory budget."""

from __future__ import annotations

import gc
import itertools
import json
import re
import shutil
import threading
import unicodedata
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tiny
from patience import PATIENCE_SECONDS, wait_until
from reference import CASES, CONTEXT, make_model, write_folder, write_gguf

from nomoat import hardware, references, responder
from nomoat.catalog import cards, memory
from nomoat.cli import model_facts
from nomoat.engine import folder_tokenizer
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.fake import FakeEngine
from nomoat.engine.local import LocalEngine
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.remote import remote_engine
from nomoat.engine.source import open_source
from nomoat.errors import BadFileError, NomoatError, NotEnoughMemoryError, SettingError, UnknownModelError, UsageError
from nomoat.records import Request
from nomoat.responder import Responder
from nomoat.serve.models import Loader, Models, _give_back_freed, _spare_bytes, from_references


class Shelf:
    """Fake models, and what happened to them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.fails = False

    def loader(self, *names: str, size: int = 1) -> Loader:
        def load() -> Sequence[Responder]:
            if self.fails:
                raise UsageError("meant")
            self.events.append(f"+{names[0]}")
            return [self._responder(name) for name in names]

        return Loader(names=names, planned_bytes=size, load=load)

    def _responder(self, name: str) -> Responder:
        responder = Responder(name, FakeEngine())
        responder.close = lambda: self.events.append(f"-{name}")  # type: ignore[method-assign]
        return responder


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def use(models: Models, name: str) -> None:
    with models.use(name) as responder:
        assert responder.ref == name


def test_models_are_loaded_when_first_asked_for_and_the_longest_idle_goes_first(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b"), shelf.loader("c")], memory_bytes=2)
    assert (models.names, models.loaded()) == (["a", "b", "c"], {})
    for name in ("a", "b", "a", "c", "a"):
        use(models, name)
    assert shelf.events == ["+a", "+b", "-b", "+c"]
    assert list(models.loaded()) == ["a", "c"]
    models.close()
    assert shelf.events[4:] == ["-a", "-c"]


def test_what_comes_and_goes_is_a_line_of_the_log(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    models = Models(loaders=[shelf.loader("a", "a+1"), shelf.loader("b")], memory_bytes=1)
    with caplog.at_level("INFO", "nomoat.serve"):
        for name in ("a", "b"):
            use(models, name)
    assert [re.sub(r"\d+\.\d s", "N s", line) for line in caplog.messages] == [
        "loaded a, a+1 in N s", "unloaded a, a+1 to make room for b", "loaded b in N s",
    ]  # fmt: skip


def test_what_a_model_held_is_given_back_to_the_system_once_nobody_has_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[Responder]] = []

    def give_back() -> None:
        if kept:  # else the first has just been loaded
            shelf.events.append("-" if kept[0]() is None else "still there")

    monkeypatch.setattr("nomoat.serve.models._give_back_freed", give_back)
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    with models.use("a") as responder:
        kept.append(weakref.ref(responder))
    del responder
    use(models, "b")
    assert shelf.events == ["+a", "-a", "-", "+b", "-"]  # and what loading took


def test_giving_memory_back_fails_on_no_system(monkeypatch: pytest.MonkeyPatch) -> None:
    _give_back_freed()
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # as a C library without it
    _give_back_freed()


def test_idle_is_counted_from_the_end_of_the_last_answer(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b"), shelf.loader("c")], memory_bytes=2)
    with models.use("a"):
        use(models, "b")
    use(models, "c")
    assert shelf.events == ["+a", "+b", "-b", "+c"]


def test_what_takes_no_memory_is_not_unloaded_for_want_of_it(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("server", size=0), shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    for name in ("server", "a", "b", "server"):
        use(models, name)
    assert shelf.events == ["+server", "+a", "-a", "+b"]


def test_auto_takes_the_memory_of_its_model_on_this_machine(tiny_gguf: Path) -> None:
    """Both are the same model, loaded twice: one has to go for the other."""
    need = responder.memory_need(open_source(tiny_gguf), None)
    size = need.total_bytes
    loaded: list[str] = []

    def load(refs: Sequence[str]) -> Sequence[Responder]:
        loaded.extend(refs)
        return [Responder(ref, FakeEngine()) for ref in refs]

    refs = ["auto", str(tiny_gguf)]
    models = from_references(refs, memory_bytes=2 * size - 1, load=load, auto_local=str(tiny_gguf))
    for name in ("auto", "tiny.gguf", "auto"):
        with models.use(name):
            assert list(models.loaded()) == [name]
    with pytest.raises(NotEnoughMemoryError, match="`auto` needs about"):
        from_references(refs, memory_bytes=size - 1, load=load, auto_local=str(tiny_gguf))


def test_where_prompts_for_a_model_go_is_known_before_it_is_loaded(tiny_gguf: Path, shelf: Shelf) -> None:
    models = from_references([str(tiny_gguf), "https://llm.example/v1#m", "auto"], load=lambda refs: [], auto_local="fake:")
    assert models.local() == {tiny_gguf.name: True, "https://llm.example/v1#m": False, "auto": None}
    models = Models({"given": Responder("given", FakeEngine())}, [shelf.loader("later")])
    assert models.local() == {"given": True, "later": None}
    use(models, "later")
    assert models.local() == {"given": True, "later": True}


def test_where_prompts_for_a_server_go_is_what_gateways_say_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that cannot be meant, the other models are listed all the same."""
    there = "http://127.0.0.1:9/v1#m"
    loaded = Responder("loaded", remote_engine(there))
    models = from_references([there, "fake:"], load=lambda refs: [loaded])
    with models.use(there):
        pass
    later = from_references([there, "fake:"], load=lambda refs: [])
    for gateways, is_local in (("", True), ("http://127.0.0.1:9", False), ("", True), ("nowhere", False)):
        monkeypatch.setenv("NOMOAT_GATEWAYS", gateways)
        assert models.local() == later.local() == {there: is_local, "fake:": True}
    loaded.close()


def test_what_a_model_learned_to_answer_is_known_before_it_is_loaded_and_what_is_damaged_tells_nothing(
    tiny_gguf: Path, tmp_path: Path, shelf: Shelf
) -> None:
    adapters = [tiny.write_adapter(tmp_path / name) for name in ("table", "chats", "damaged")]
    for adapter, provenance in zip(adapters, ('{"data": {"question": "{text}?"}}', '{"data": {}}', "{"), strict=True):
        (adapter / "provenance.json").write_text(provenance, encoding="utf-8")
    models = from_references([str(tiny_gguf), *(f"{tiny_gguf}+{adapter}" for adapter in adapters)], load=lambda refs: [])
    assert models.questions(models.names) == {"tiny.gguf+table": "{text}?"}
    given = {name: Responder(name, FakeEngine(), question=question) for name, question in (("a", "{text}!"), ("b", None))}
    models = Models(given, [shelf.loader("later")])
    assert models.questions(models.names) == {"a": "{text}!"}


def test_auto_tells_what_its_model_on_this_machine_learned_while_it_is_not_in_memory(tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "table")
    (adapter / "provenance.json").write_text('{"data": {"question": "{text}?"}}', encoding="utf-8")
    models = from_references(["fake:", "auto"], load=lambda refs: [], auto_local=f"{tiny_gguf}+{adapter}")
    assert models.questions(models.names) == {"auto": "{text}?"}


def test_whether_a_model_chats_is_known_before_it_is_loaded(tmp_path: Path) -> None:
    base = tiny.write_tiny_gguf(tmp_path / "base.gguf", template=None)
    chat = tiny.write_tiny_gguf(tmp_path / "chat.gguf")
    adapters = {name: tiny.write_adapter(tmp_path / name) for name in ("plain", "named", "brings", "damaged")}
    (adapters["named"] / "provenance.json").write_text('{"task": {"template": "chatml"}}', encoding="utf-8")
    (adapters["brings"] / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    (adapters["damaged"] / "tokenizer_config.json").write_text("{", encoding="utf-8")
    refs = [str(base), str(chat), *(f"{base}+{adapter}" for adapter in adapters.values()), "fake:", "http://127.0.0.1:9/v1#m"]
    known = dict(zip(map(references.shown_name, refs), (False, True, False, True, True, None, None, None), strict=True))
    models = from_references(refs, load=lambda refs: [])
    assert models.chats(models.names) == known
    models = from_references(refs, load=lambda refs: [], template="alpaca")
    assert {name: chats for name, chats in models.chats(models.names).items() if not chats} == {refs[-2]: None, refs[-1]: None}


def test_a_chat_template_that_cannot_be_read_keeps_no_server_from_starting(tiny_gguf: Path, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path, "llama")
    (folder / "tokenizer_config.json").write_text("{", encoding="utf-8")
    models = from_references([str(tiny_gguf), str(folder)], load=lambda refs: [])
    assert models.chats(models.names) == {tiny_gguf.name: True, folder.name: None}


def test_files_are_read_once_for_whether_a_model_chats_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer's tokenizer takes long to read, and pages list the models after every answer."""
    base, adapter = tiny.write_tiny_gguf(tmp_path / "base.gguf", template=None), tiny.write_adapter(tmp_path / "a")
    settings = adapter / "tokenizer_config.json"
    models = from_references([f"{base}+{adapter}"], load=lambda refs: [])
    read = mock.Mock(side_effect=folder_tokenizer.read_object)
    monkeypatch.setattr(folder_tokenizer, "read_object", read)
    for text, chats, times in (("{}", False, 1), ("{", None, 3), ('{"chat_template": "{{ messages }}"}', True, 1)):
        settings.write_text(text, encoding="utf-8")
        read.reset_mock()
        assert [models.chats(models.names) for _ in range(3)] == [{"base.gguf+a": chats}] * 3
        assert read.call_count == times
    (adapter / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    settings.unlink()
    assert models.chats(models.names) == {"base.gguf+a": True}


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
def test_whether_a_model_chats_is_that_of_what_is_loaded(tmp_path: Path, template: str | None) -> None:
    path = tiny.write_tiny_gguf(tmp_path / "model.gguf", template=template)
    with responder.load(str(path)) as given:
        assert Models({"given": given}).chats(["given"]) == {"given": template is not None}


def test_files_are_read_for_the_questions_of_those_models_alone_that_are_asked_about(shelf: Shelf) -> None:
    read: list[str] = []

    def question(name: str) -> str:
        read.append(name)
        return f"{name}?"

    loaders = [replace(shelf.loader(name), question=question) for name in ("a", "b")]
    assert Models(loaders=loaders).questions(["b"]) == {"b": "b?"}
    assert read == ["b"]


def test_a_model_tuned_anew_tells_what_it_learned_as_soon_as_the_old_one_has_left_memory(tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "table")

    def tune(question: str) -> None:
        (adapter / "provenance.json").write_text(f'{{"data": {{"question": "{question}"}}}}', encoding="utf-8")

    def load(refs: Sequence[str]) -> list[Responder]:
        return [Responder(ref, FakeEngine(), question=references.find_files(ref).question) for ref in refs]

    tune("{text}?")
    models = from_references([f"{tiny_gguf}+{adapter}"], load=load)
    with models.use("tiny.gguf+table"):
        tune("{text}!")
    assert models.questions(models.names) == {"tiny.gguf+table": "{text}?"}, "what answers now"
    models.close()
    assert models.questions(models.names) == {"tiny.gguf+table": "{text}!"}


def test_models_are_listed_while_one_is_being_closed(shelf: Shelf) -> None:
    """The server's event loop lists them, and closing may take a while."""
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    closing, go_on = threading.Event(), threading.Event()

    def close() -> None:
        closing.set()
        assert go_on.wait(PATIENCE_SECONDS)

    with models.use("a") as a:
        a.close = close  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        using = pool.submit(use, models, "b")
        assert closing.wait(PATIENCE_SECONDS)
        try:
            assert pool.submit(models.loaded).result(timeout=PATIENCE_SECONDS) == {}
            assert shelf.events == ["+a"]
        finally:
            go_on.set()
        using.result(timeout=PATIENCE_SECONDS)
    assert list(models.loaded()) == ["b"]


def test_a_model_that_is_answering_is_never_unloaded_and_the_next_waits_for_it(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    with ThreadPoolExecutor(1) as pool:
        with models.use("a"):
            waiting = pool.submit(use, models, "b")
            waiting_for(models, 1)
            assert not waiting.done() and shelf.events == ["+a"]
        waiting.result(timeout=PATIENCE_SECONDS)
    assert shelf.events == ["+a", "-a", "+b"]


def waiting_for(models: Models, count: int) -> None:
    wait_until(lambda: len(models._waiting) >= count)


def test_who_waits_for_room_is_served_before_newcomers_to_the_busy_model(shelf: Shelf) -> None:
    """Without that a model that is always busy would keep all others waiting for ever. Those who want the same model go together."""
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    with ThreadPoolExecutor(4) as pool:
        with models.use("a"):
            asked = []
            for count, name in enumerate(("b", "a", "b", "a"), start=1):
                asked.append(pool.submit(use, models, name))
                waiting_for(models, count)
            assert shelf.events == ["+a"]
        for one in asked:
            one.result(timeout=PATIENCE_SECONDS)
    assert shelf.events == ["+a", "-a", "+b", "-b", "+a"]


def test_who_has_gone_waits_no_longer_and_nothing_is_loaded_for_them(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    gone = threading.Event()

    def ask() -> None:
        with models.use("b", gone):
            pass

    with ThreadPoolExecutor(2) as pool:
        with models.use("a"):
            leaving = pool.submit(ask)
            waiting_for(models, 1)
            behind = pool.submit(use, models, "a")
            waiting_for(models, 2)
            gone.set()
            with pytest.raises(NomoatError, match="the answer was stopped"):
                leaving.result(timeout=PATIENCE_SECONDS)
            behind.result(timeout=PATIENCE_SECONDS)
        with pytest.raises(NomoatError, match="the answer was stopped"):
            ask()
    use(models, "a")
    assert shelf.events == ["+a"]


def test_models_that_are_always_there_wait_for_nobody(shelf: Shelf) -> None:
    models = Models({"mine": Responder("mine", FakeEngine())}, [shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    with ThreadPoolExecutor(1) as pool:
        with models.use("a"):
            waiting = pool.submit(use, models, "b")
            waiting_for(models, 1)
            use(models, "mine")
        waiting.result(timeout=PATIENCE_SECONDS)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.gguf").touch()
    one, two = str(tmp_path / "one" / "x.gguf"), str(tmp_path / "two" / "x.gguf")
    with pytest.raises(UsageError) as caught:
        from_references([one, one, two])
    assert caught.value.message == f"`{one}` and `{two}` would both be called `x.gguf`"
    assert caught.value.hint == "rename one of the two"


def test_many_who_ask_at_once_load_it_once(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a")], memory_bytes=1)
    barrier = threading.Barrier(8, timeout=PATIENCE_SECONDS)

    def ask() -> None:
        barrier.wait()
        use(models, "a")

    with ThreadPoolExecutor(8) as pool:
        for asked in [pool.submit(ask) for _ in range(8)]:
            asked.result(timeout=PATIENCE_SECONDS)
    assert shelf.events == ["+a"]


def test_a_model_that_could_not_be_loaded_is_tried_again(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")], memory_bytes=1)
    shelf.fails = True
    for _ in range(2):
        with pytest.raises(SettingError, match="meant"):  # nothing that whoever asks could have said otherwise
            use(models, "a")
    shelf.fails = False
    use(models, "b")
    use(models, "a")
    assert shelf.events == ["+b", "-b", "+a"]


def test_models_that_share_weights_come_and_go_together(shelf: Shelf) -> None:
    models = Models(loaders=[shelf.loader("a", "a+x"), shelf.loader("b")], memory_bytes=1)
    use(models, "a+x")
    use(models, "a")
    assert shelf.events == ["+a"]
    use(models, "b")
    assert shelf.events == ["+a", "-a", "-a+x", "+b"]


def test_an_adapter_that_is_gone_or_damaged_takes_nobody_with_it_and_answers_once_it_is_loaded_again(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    base = str(shutil.copy(tiny_gguf, tmp_path))
    lost, kept = tiny.write_adapter(tmp_path / "lost"), tiny.write_adapter(tmp_path / "kept", seed=2)
    models = from_references([base, f"{base}+{lost}", f"{base}+{kept}"])
    there = ["tiny.gguf", "tiny.gguf+kept"]
    assert models.names == ["tiny.gguf", "tiny.gguf+lost", "tiny.gguf+kept"]

    def ask(name: str) -> None:
        with models.use(name) as responder:
            assert responder.complete(Request(prompt="hi", max_new_tokens=2)).usage.completion_tokens > 0

    lost.rename(tmp_path / "away")
    for name in (*there, "tiny.gguf+lost"):
        if name in there:
            ask(name)
        else:
            with pytest.raises(UnknownModelError, match=r"no adapter `.*lost`"):
                ask(name)
        assert list(models.loaded()) == there
    (tmp_path / "away").rename(lost)
    with pytest.raises(UnknownModelError, match=r"no adapter `.*lost`"):
        ask("tiny.gguf+lost")
    models.close()
    ask("tiny.gguf+lost")
    assert list(models.loaded()) == models.names

    models.close()
    weights = (lost / "adapter_model.safetensors").read_bytes()
    (lost / "adapter_model.safetensors").write_bytes(weights[:100])
    with pytest.raises(BadFileError, match="is not a whole safetensors file"):
        ask("tiny.gguf+lost")
    ask("tiny.gguf")
    assert list(models.loaded()) == there
    (lost / "adapter_model.safetensors").write_bytes(weights)
    models.close()
    ask("tiny.gguf+lost")
    models.close()
    (lost / "adapter_config.json").unlink()
    Path(base).rename(tmp_path / "moved.gguf")
    with pytest.raises(UnknownModelError, match=r"tiny\.gguf"):  # what all of them need is gone
        ask("tiny.gguf+kept")


@pytest.mark.parametrize("damaged", ["adapter_model.safetensors", "provenance.json"])  # found before the engine is made, and after
def test_what_was_loaded_beside_a_damaged_adapter_is_freed_like_all_else(
    damaged: str, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that is kept of it holds no frames, which would hold the engines."""
    made: list[weakref.ref[LocalEngine]] = []
    closed: list[int] = []
    init, close = LocalEngine.__init__, LocalEngine.close

    def watched(self: LocalEngine, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        init(self, *args, **kwargs)

    def watched_close(self: LocalEngine) -> None:
        closed.extend(at for at, one in enumerate(made) if (there := one()) is not None and there._shared is self._shared)
        close(self)

    monkeypatch.setattr(LocalEngine, "__init__", watched)
    monkeypatch.setattr(LocalEngine, "close", watched_close)
    adapter = tiny.write_adapter(tmp_path / "a")
    (adapter / damaged).write_text("{")
    models = from_references([str(tiny_gguf), f"{tiny_gguf}+{adapter}", f"{tiny_gguf}+{tiny.write_adapter(tmp_path / 'b')}"])
    with models.use("tiny.gguf"):
        gc.collect()
        assert closed == list(range(len(made) - 1))
        assert [one() is not None for one in made] == [False] * len(closed) + [True]
    models.close()
    gc.collect()
    assert [one() for one in made] == [None] * len(made)


def test_each_who_asks_for_what_was_not_loaded_has_an_error_of_their_own(shelf: Shelf) -> None:
    """Raised in several threads, one and the same would hold the last one's frames."""

    def load() -> Sequence[Responder | NomoatError]:
        return [shelf._responder("a"), UsageError("meant", hint="so")]

    models = Models(loaders=[Loader(names=("a", "a+x"), planned_bytes=1, load=load)])
    with pytest.raises(SettingError, match="meant") as caught:
        use(models, "a+x")
    kept = models._units["a+x"].missing["a+x"]
    assert kept is not caught.value and kept.__traceback__ is None
    assert (caught.value.message, caught.value.hint) == ("meant", "so")


def test_what_was_given_stays_and_is_left_to_its_maker(shelf: Shelf) -> None:
    given = Responder("mine", FakeEngine())
    given.close = lambda: shelf.events.append("-mine")  # type: ignore[method-assign]
    models = Models({"mine": given}, [shelf.loader("a")], memory_bytes=1)
    use(models, "mine")
    use(models, "a")
    models.close()
    assert shelf.events == ["+a", "-a"]


def test_a_model_larger_than_the_budget_is_refused_at_the_start(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is tested with `catalog.memory`. Without a budget it is 80 % of what this process may have in all."""
    need = responder.memory_need(open_source(tiny_gguf), None)
    size = need.total_bytes
    with pytest.raises(NotEnoughMemoryError) as caught:
        from_references([str(tiny_gguf)], memory_bytes=200_000_000)
    assert caught.value.message == "`tiny.gguf` needs about 0.4 GB, and the budget is 0.2 GB"
    monkeypatch.setattr(hardware, "memory_of_this_process_bytes", lambda: 60_000_000)
    for missing in (0, 100):
        free = int(size / 0.8) + 1 - 60_000_000 - missing
        monkeypatch.setattr(hardware, "memory_available_bytes", lambda free=free: hardware.Detected(free, "free"))
        with pytest.raises(NotEnoughMemoryError) if missing else nullcontext():
            from_references([str(tiny_gguf)])


def test_names_are_found_or_refused_with_the_known_ones(shelf: Shelf) -> None:
    assert Models(loaders=[shelf.loader("a")]).find(None) == "a"
    models = Models(loaders=[shelf.loader("a"), shelf.loader("b")])
    assert models.find("b") == "b"
    assert Models(loaders=[shelf.loader("a+분류"), shelf.loader("b")]).find(unicodedata.normalize("NFD", "a+분류")) == "a+분류"
    spelled = ["분류", unicodedata.normalize("NFD", "분류")]
    assert [Models(loaders=[shelf.loader(name) for name in spelled]).find(name) for name in spelled] == spelled
    for name, message in ((None, "the request names no model"), ("c", "there is no model `c` here")):
        with pytest.raises(UnknownModelError, match=message) as caught:
            models.find(name)
        assert caught.value.hint == "known: a, b"
    with pytest.raises(UsageError, match="there is no model to serve") as refused:
        Models()
    assert "`nomoat serve" in str(refused.value.hint)


@pytest.mark.parametrize(
    ("needed", "memory_bytes", "spare"),
    [
        ((59, 72, 59), 189, 29),  # any two fit, the three do not: the larger two set the share
        ((10, 20, 30), 90, 10),
        ((10, 10, 95), 100, 0),  # the small two fit together, either of them and the large one do not
        ((60, 70), 100, 100),  # one at a time: each may have all
        ((), 100, 100),
    ],
)
def test_models_that_fit_together_still_do_with_what_they_may_hold_beyond_their_needs(
    needed: tuple[int, ...], memory_bytes: int, spare: int
) -> None:
    assert _spare_bytes(needed, memory_bytes) == spare
    for size in range(2, len(needed) + 1):
        for together in itertools.combinations(needed, size):
            assert sum(together) > memory_bytes or sum(together) + size * spare <= memory_bytes


@pytest.mark.parametrize(("memory_bytes", "together"), [(10**9, 2), (8 * 10**8 + 10**6, 2), (7 * 10**8, 1), (10**11, 2)])
def test_what_models_may_hold_with_their_texts_keeps_within_the_budget(
    memory_bytes: int, together: int, tiny_gguf: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_gguf.read_bytes())
    need = responder.memory_need(open_source(tiny_gguf), None)
    models = from_references([str(tiny_gguf), str(other)], memory_bytes=memory_bytes)
    loaders = [unit.loader for unit in models._units.values() if unit.loader is not None]
    for loader in loaders:
        assert loader.cache_bytes is not None
        assert loader.planned_bytes == need.total_bytes - need.kv_cache_bytes + loader.cache_bytes
        spare = (memory_bytes - together * need.total_bytes) // together
        assert loader.cache_bytes == min(need.most_cache_bytes, need.kv_cache_bytes + spare)
    assert sum(loader.planned_bytes for loader in loaders[:together]) <= memory_bytes
    for loader in loaders:
        with models.use(loader.names[0]) as model:
            beyond = model.engine._shared.cache_bytes - loader.cache_bytes  # type: ignore[attr-defined]
            assert 0 <= beyond < BLOCK_TOKENS * need.kv_cache_bytes / tiny.CONTEXT  # it has whole blocks
    assert len(models.loaded()) == together
    models.close()


def test_show_and_serve_count_the_same_memory_of_what_is_pulled(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.catalog.pull.find_installed", lambda ref: tiny_gguf if ref == "smollm2-135m" else None)
    for context in (None, tiny.CONTEXT // 2, 100 * tiny.CONTEXT):
        assert model_facts.card_need(cards.card("smollm2-135m"), context) == responder.memory_need(open_source(tiny_gguf), context)
    assert model_facts.card_need(cards.card("qwen2.5-7b"), None) == memory.memory_need(cards.card("qwen2.5-7b"))


@pytest.mark.parametrize("name", CASES)
def test_show_and_serve_count_the_same_memory_of_every_family(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of LongRoPE the context asked for decides which factors run, and with that which texts."""
    path = write_gguf(tmp_path / "model.gguf", CASES[name], make_model(CASES[name]))
    monkeypatch.setattr("nomoat.catalog.pull.find_installed", lambda ref: path)
    of_family = replace(cards.card("smollm2-135m"), architecture=CASES[name].arch)
    for context in (None, CONTEXT, None):  # the last from the notes of the first
        served = responder.memory_need(open_source(path), context)
        assert model_facts.file_need(open_source(path), context) == (served, CONTEXT)
        assert model_facts.card_need(of_family, context) == served
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", str(CONTEXT))
    assert model_facts.card_need(of_family, None) == responder.memory_need(open_source(path), CONTEXT)


def test_show_and_serve_count_the_same_memory_of_what_optimum_intel_converts(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "olmo"}))
    source = ForeignFolder(folder)
    for context in (None, 64):
        need, longest = model_facts.file_need(source, context)
        assert (need, longest) == (responder.memory_need(source, context), CONTEXT)
    assert model_facts.can_run(source)
