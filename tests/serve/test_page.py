"""The page in a real browser: Chromium, driven by Selenium."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import chrome, needs_browser, set_viewport
from leaving import endless
from patience import PATIENCE_SECONDS, wait_until
from scripted import Asked, ScriptedEngine
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from nomoat.engine.fake import FakeEngine
from nomoat.errors import RemoteError
from nomoat.records import Chunk, Usage
from nomoat.responder import Responder
from nomoat.route.policy import Policy
from nomoat.route.router import RouterEngine
from nomoat.serve.listening import bind, saying_that_it_loads
from nomoat.serve.models import Loader, Models, from_references
from nomoat.serve.web.markdown import as_html
from nomoat.tune.data import read

Start = Callable[..., str]
pytestmark = [needs_browser, pytest.mark.slow]
SIZE = (900, 700)
END = Chunk(text="", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=9, prefill_seconds=0.1, decode_seconds=0.1))


class Page:
    """A browser with the page in its only tab."""

    def __init__(self, language: str) -> None:
        self.browser = chrome(language)

    def begin_anew(self) -> None:
        """In a tab of its own, of the usual size; what was shown before is gone, and what the console said of it."""
        (old,) = self.browser.window_handles
        self.browser.switch_to.new_window("tab")
        new = self.browser.current_window_handle
        self.browser.switch_to.window(old)
        self.browser.close()
        self.browser.switch_to.window(new)
        self.browser.set_window_size(*SIZE)
        self.complaints()

    def open(self, base_url: str) -> None:
        self.browser.get(base_url.removesuffix("v1"))

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, selector: str, text: str) -> None:
        """Wait until the last of these elements shows that text."""
        wait_until(lambda: (found := self.all(selector)) and text in found[-1].text, f"{text!r} in `{selector}`")

    def ask(self, text: str) -> None:
        self.find("#question").send_keys(text, Keys.ENTER)

    def complaints(self) -> list[str]:
        """What the browser's console says is wrong."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def browsers() -> Iterator[dict[str, Page]]:
    """By language; each is started once, by the first test that asks for it."""
    started: dict[str, Page] = {}
    yield started
    for one in started.values():
        one.browser.quit()


@pytest.fixture
def page(request: pytest.FixtureRequest, browsers: dict[str, Page]) -> Page:
    """In English, or in the language that is the fixture's parameter."""
    language = getattr(request, "param", "en-US")
    if language not in browsers:
        browsers[language] = Page(language)
    browsers[language].begin_anew()
    return browsers[language]


def test_enter_sends_and_the_answer_stands_below_with_what_it_took(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    page.ask("one two **three**")
    page.until("article.assistant .facts", "tokens")
    assert page.find("article.user .text").text == "one two **three**"
    assert page.find("article.assistant strong").text == "three"
    assert "Nothing is sent anywhere else" in page.find("#about").text
    page.ask("and four")
    page.until("article.assistant .text", "four and")
    page.browser.refresh()
    page.until("article.user", "and four")
    assert [one.text for one in page.all("article.user .text")] == ["one two **three**", "and four"]
    assert page.complaints() == []


def test_an_answer_of_which_nothing_has_come_shows_that_it_is_waited_for(page: Page, start: Start) -> None:
    def late() -> Iterator[Chunk]:
        assert is_seen.wait(PATIENCE_SECONDS)
        yield Chunk(text="at last")
        yield END

    def before() -> str:
        script = "return getComputedStyle(document.querySelector('article.assistant .text'), '::before').content"
        return str(page.browser.execute_script(script))

    is_seen = threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(late))))
    page.ask("go")
    try:
        wait_until(lambda: page.all("article.assistant"), "an answer")
        assert before() == '"…" / ""'
    finally:
        is_seen.set()
    page.until("article[aria-busy=false].assistant .text", "at last")
    assert before() == "none"


def test_an_answer_too_long_to_be_rendered_is_shown_whole_as_it_was_written(
    page: Page, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.serve.app.MAX_MARKDOWN_BYTES", 20)

    def grows() -> Iterator[Chunk]:
        yield Chunk(text="**one**\n")
        assert is_shown_bold.wait(PATIENCE_SECONDS)
        yield Chunk(text="\n  two three four ")
        assert is_shown_plain.wait(PATIENCE_SECONDS)
        yield Chunk(text="five **six**")
        yield END

    is_shown_bold, is_shown_plain = threading.Event(), threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(grows))))
    page.ask("go")
    try:
        page.until("article.assistant strong", "one")
        is_shown_bold.set()
        page.until("article.assistant .text.plain", "**one**\n\n  two three four")
    finally:
        is_shown_bold.set()
        is_shown_plain.set()
    page.until("article.assistant .facts", "tokens")
    page.until("article[aria-busy=false].assistant .text.plain", "**one**\n\n  two three four five **six**")


def test_an_answer_that_is_nested_too_deep_is_shown_whole_as_it_was_written(page: Page, start: Start) -> None:
    text = "**one**\n" + ">" * 200 + "two"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=text), END])))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .text.plain", text)


class Renderings:
    """The server's renderer, with what each rendering does first; how many there were, and how many at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object]) -> None:
        self.begun = self.under_way = self.most_at_once = 0
        self._before = before
        self._lock = threading.Lock()
        monkeypatch.setattr("nomoat.serve.app.as_html", self._render)

    def _render(self, markdown: str) -> str:
        with self._lock:
            self.begun += 1
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            number = self.begun
        try:
            self._before(number)
            return as_html(markdown)
        finally:
            with self._lock:
                self.under_way -= 1


def test_a_text_moves_on_while_its_pieces_come_faster_than_they_are_rendered(
    page: Page, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def goes_on() -> Iterator[Chunk]:
        for at in range(2000):
            if has_moved.is_set():
                break
            yield Chunk(text=f"{at} ")
            time.sleep(0.05)
        yield Chunk(text="**end**")
        yield END

    has_moved = threading.Event()
    renderings = Renderings(monkeypatch, lambda number: time.sleep(0.6 if number > 1 else 0.0))
    page.open(start(Responder("fake", ScriptedEngine(goes_on))))
    page.ask("go")
    try:
        page.until("article.assistant .text", "0 1 2 3 4 5")
        page.until("article.assistant .text", " 20 21 22 23 24 25")
    finally:
        has_moved.set()
    page.until("article[aria-busy=false].assistant strong", "end")
    shown = page.find("article.assistant .text").text.split()
    assert shown == [*map(str, range(len(shown) - 1)), "end"]
    assert renderings.most_at_once == 1


@pytest.mark.parametrize(
    ("takes", "line_takes", "count", "fastest", "slowest"),
    [
        pytest.param(0.0, 0.0, 6, 0.25, 0.5, id="quick"),
        pytest.param(0.0, 0.12, 6, 0.25, 0.5, id="over a slow line"),
        pytest.param(0.2, 0.0, 5, 0.6, PATIENCE_SECONDS, id="slow"),
        pytest.param(1.0, 0.0, 3, 2.0, 2.8, id="slowest"),
    ],
)
def test_a_text_that_takes_long_to_be_rendered_is_rendered_less_often(
    page: Page, start: Start, monkeypatch: pytest.MonkeyPatch,
    takes: float, line_takes: float, count: int, fastest: float, slowest: float,
) -> None:  # fmt: skip
    """However many renderings there were before."""

    def goes_on() -> Iterator[Chunk]:
        while len(begun) < count:
            yield Chunk(text="word ")
            time.sleep(0.02)
        yield END

    def renders(number: int) -> None:
        begun.append(time.monotonic())
        time.sleep(takes)

    begun: list[float] = []
    Renderings(monkeypatch, renders)
    page.browser.execute_cdp_cmd("Network.enable", {})
    line = {"offline": False, "latency": line_takes * 1000, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", line)
    page.open(start(Responder("fake", ScriptedEngine(goes_on))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun[1:count])]
    assert min(pauses) > fastest - 0.05 and min(pauses[-3:]) < slowest


def test_a_rendering_that_fails_after_the_end_does_not_undo_that_of_the_whole_answer(
    page: Page, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grows() -> Iterator[Chunk]:
        yield Chunk(text="one ")
        wait_until(lambda: renderings.begun == 1, "the first rendering")
        yield Chunk(text="two ")
        wait_until(lambda: renderings.begun == 2, "the second rendering")
        yield Chunk(text="**three**")
        yield END

    def fails_late(number: int) -> None:
        if number == 2:
            assert has_ended.wait(PATIENCE_SECONDS)
            raise RemoteError("the cable was cut")

    has_ended = threading.Event()
    renderings = Renderings(monkeypatch, fails_late)
    page.open(start(Responder("fake", ScriptedEngine(grows))))
    page.ask("go")
    try:
        page.until("article.assistant .facts", "tokens")
    finally:
        has_ended.set()
    page.until("article[aria-busy=false].assistant strong", "three")
    assert page.find("article.assistant .text").text == "one two three"
    assert (renderings.begun, renderings.most_at_once) == (3, 1)


def test_whoever_scrolls_up_while_the_text_is_rendered_reads_on_there(
    page: Page, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grows() -> Iterator[Chunk]:
        yield Chunk(text="one ")
        assert is_scrolled.wait(PATIENCE_SECONDS)
        yield Chunk(text="**end**")
        yield END

    is_scrolled = threading.Event()
    renderings = Renderings(monkeypatch, lambda number: number > 1 or is_scrolled.wait(PATIENCE_SECONDS))
    page.open(start(Responder("fake", ScriptedEngine(grows))))
    page.ask("go")
    try:
        wait_until(lambda: renderings.under_way, "the first rendering")
        page.browser.execute_script("document.querySelector('article.user').style.minHeight = '2000px'")  # to scroll in
        page.browser.execute_script("document.getElementById('talk').scrollTop = 0")
    finally:
        is_scrolled.set()
    page.until("article[aria-busy=false].assistant strong", "end")
    assert page.find("#talk").get_property("scrollTop") == 0


def test_what_is_written_of_an_answer_stays_focused_selected_and_scrolled_while_it_goes_on(page: Page, start: Start) -> None:
    def goes_on() -> Iterator[Chunk]:
        yield Chunk(text=f"One [link](https://a.example).\n\n- two\n\n  ```sh\n  {'long ' * 99}\n  ```\n\n  and th")
        assert is_held.wait(PATIENCE_SECONDS)
        for piece in ("ree", " four\n- **five", "**\n\nsix"):
            yield Chunk(text=piece)
            time.sleep(0.4)
        yield END

    is_held = threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(goes_on))))
    page.ask("go")
    try:
        page.until("article.assistant li", "and th")
        assert page.all("article pre[tabindex='0']")
        page.browser.execute_script("""
            window.held = document.querySelector('article .code');
            held.firstChild.scrollLeft = 150;
            document.querySelector('article a').focus();
            getSelection().selectAllChildren(document.querySelector('article li > p:last-child'))""")
    finally:
        is_held.set()
    page.until("article[aria-busy=false].assistant li + li strong", "five")
    page.until("article.assistant .text > p:last-child", "six")
    kept = (
        "return [held.isConnected, held.firstChild.scrollLeft, document.activeElement.textContent, getSelection().toString().trim()]"
    )
    assert page.browser.execute_script(kept) == [True, 150, "link", "and three four"]


def test_a_copy_is_told_to_a_screen_reader_and_so_is_one_that_the_browser_refuses(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text="```\nls\n```"), END])))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    for_code, for_answer = page.find("article .code button"), page.find("article .facts button")
    assert [one.accessible_name for one in (for_code, for_answer)] == ["Copy the code", "Copy the answer"]
    assert all(min(one.rect["height"], one.rect["width"]) > 24 for one in (for_code, for_answer)), "too small to be hit (WCAG 2.5.8)"
    for allowed, said in (("resolve", "Copied"), ("reject", "Not copied")):
        clipboard = f"{{configurable: true, value: {{writeText: async () => Promise.{allowed}()}}}}"
        page.browser.execute_script(f"Object.defineProperty(navigator, 'clipboard', {clipboard})")
        for_code.click()
        wait_until(lambda: page.find("#now").get_property("textContent") == said, said)  # noqa: B023
        assert for_code.text == said
        wait_until(lambda: (for_code.text, page.find("#now").get_property("textContent")) == ("Copy", ""), "the end of that")
    assert page.complaints() == []


def test_an_answer_is_copied_where_the_browser_has_no_clipboard(page: Page, start: Start) -> None:
    """So are pages that come over plain http from another machine."""
    page.open(start(Responder("fake", FakeEngine())))
    page.browser.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.ask("one **two**")
    page.until("article.assistant .facts", "tokens")
    page.all("article.assistant .facts button")[0].click()
    page.find("#question").send_keys(Keys.CONTROL, "v")
    assert page.find("#question").get_property("value") == "**two** one"
    assert page.complaints() == []


@contextmanager
def half_an_answer(page: Page, start: Start) -> Iterator[None]:
    """The page shows the first half; the second comes when the block ends."""
    go_on = threading.Event()

    def slow() -> Iterator[Chunk]:
        yield Chunk(text="half ")
        assert go_on.wait(PATIENCE_SECONDS)
        yield Chunk(text="\n\n# title")
        yield END

    page.open(start(Responder("fake", ScriptedEngine(slow))))
    page.ask("go")
    page.until("article.assistant .text", "half")
    try:
        yield
    finally:
        go_on.set()


def test_a_screen_reader_is_told_who_speaks_and_reads_an_answer_once_it_is_whole(page: Page, start: Start) -> None:
    with half_an_answer(page, start):
        assert page.find("article.assistant").get_attribute("aria-busy") == "true"
        assert page.find("#now[role=status]").get_property("textContent") == "The answer is being written. Esc or Stop ends it."
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    page.until("article.assistant .text", "half")
    wait_until(lambda: page.find("#now").get_property("textContent") == "", "the end of what is said")
    headings = [(one.tag_name, one.get_property("textContent")) for one in page.all(":is(h1, h2, h3)")]
    assert headings == [("h1", "nomoat"), ("h2", "You"), ("h2", "Answer"), ("h3", "title")]
    assert page.all("main > #talk[role=log]") and page.all("main > #form")


# What is written into live regions that are not turned off, all of which a screen reader may read. Some of them read what is in a busy
# element piece by piece, and NVDA never says what got in there meanwhile (nvaccess/nvda#20871).
LISTEN = """window.heard = [];
    new MutationObserver((changes) => {
        for (const { target, addedNodes } of changes) {
            const region = (target.closest ? target : target.parentElement)?.closest('[aria-live], [role=status], [role=log]');
            if (region && region.ariaLive !== 'off') for (const { textContent } of addedNodes) window.heard.push(textContent);
        }
    }).observe(document.body, { childList: true, subtree: true, characterData: true })"""


def test_a_screen_reader_reads_an_answer_or_what_went_wrong_once_and_no_piece_of_it_before(page: Page, start: Start) -> None:
    pieces = ["한국어로 씁니다.\n\n", "In English.\n\n", "```\nls\n```"]

    def slow() -> Iterator[Chunk]:
        if not pieces:
            raise RemoteError("it broke")
        while pieces:
            yield Chunk(text=pieces.pop(0))
            time.sleep(0.3)  # longer than the page waits between two renderings
        yield END

    page.open(start(Responder("fake", ScriptedEngine(slow))))
    page.until("#about", "Nothing is sent anywhere else")
    page.browser.execute_script(LISTEN)
    for question, said, languages in (("go", "한국어로 씁니다.\nIn English.\nls\n\n", ["ko", "en"]), ("again", "it broke", ["en"])):
        page.ask(question)
        wait_until(lambda: said in page.browser.execute_script("return heard"), said)  # noqa: B023
        assert [one.get_attribute("lang") for one in page.all("#now > *")] == languages
        heard = page.browser.execute_script("return heard.splice(0)")
        assert heard[:4] == [f"You{question}", "Answer", "The answer is being written. Esc or Stop ends it.", said]
        assert len(heard) == 3 + len(languages)  # and what is known of the answer
        wait_until(lambda: not page.all("#now > *"), "the end of what is said")


def test_what_was_asked_written_and_typed_is_still_there_after_a_reload_in_mid_answer(page: Page, start: Start) -> None:
    closed = threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(lambda: endless(threading.Event(), closed)))))
    page.ask("go on")
    page.until("article.assistant .text", "word word word")
    kept = "return sessionStorage.getItem('nomoat')"
    wait_until(lambda: "word word word" in page.browser.execute_script(kept), "what a tab that dies leaves")
    page.find("#question").send_keys("a draft")
    page.browser.refresh()
    page.until("article[aria-busy=false].assistant .facts", "stopped")
    assert page.find("article.assistant .text").text.startswith("word word word")
    assert [one.text for one in page.all("article.user .text")] == ["go on"]
    assert page.find("#question").get_property("value") == "a draft"
    assert closed.wait(PATIENCE_SECONDS)


def test_a_conversation_is_printed_whole_and_who_speaks_with_it(page: Page, start: Start) -> None:
    text = "word\n\n" * 40 + f"```\n{'long ' * 99}\n```\n"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=text), END])))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.browser.execute_script("return talk.clientHeight > 2 * innerHeight && talk.clientHeight === talk.scrollHeight")
    assert page.browser.execute_script("const code = document.querySelector('pre'); return code.clientWidth === code.scrollWidth")
    assert [one.text for one in page.all("article h2")] == ["You", "Answer"]
    assert [one.is_displayed() for one in page.all("header, #now, form, article button")] == [False] * 6


@pytest.mark.parametrize("page", ["en-US", "ko-KR"], indirect=True)
def test_a_conversation_has_room_where_a_window_of_1280_pixels_is_zoomed_to_400_per_cent(page: Page, start: Start) -> None:
    page.open(start(Responder("smollm2-135m-instruct", FakeEngine())))
    page.until("#model", "smollm2")
    set_viewport(page.browser, 320, 256)
    assert page.find("#talk").get_property("clientHeight") > 150
    assert page.browser.execute_script("const all = document.documentElement; return all.scrollWidth === all.clientWidth")
    page.ask("one two")
    page.until("article.assistant .text", "two one")


def test_a_long_conversation_scrolls_in_its_place_and_not_the_page(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text="one\n\n" * 200), END])))))
    page.ask("hello")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    assert page.browser.execute_script("return talk.scrollHeight > 2 * talk.clientHeight")
    assert page.browser.execute_script("const all = document.documentElement; return all.scrollHeight === all.clientHeight")


@pytest.mark.parametrize(
    ("page", "languages"),
    [("en-US", ["ko", "en", "ko", "en", "en"]), ("ko-KR", ["ko", "", "ko", "", "ko"])],
    indirect=["page"],
)
def test_what_is_written_in_another_language_than_the_page_is_marked(page: Page, start: Start, languages: list[str]) -> None:
    text = "A moat is a ditch.\n\nPython의 list를 쓰세요.\n\n- a word (단어) of it\n\n---"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=text), END])))))
    page.ask("안녕하세요?")
    page.until("article[aria-busy=false].assistant .facts", "9")
    assert [one.get_property("lang") for one in page.all("article.user .text, article.assistant .text > *")] == languages


def test_a_wide_table_scrolls_in_its_box_by_keys_too_and_its_words_stay_whole(page: Page, start: Start) -> None:
    row = "|".join(f" heading {at} of it " for at in range(20))
    table = f"|{row}|\n|{'---|' * 20}\n|{row}|\n"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=table), END])))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    for width in (900, 360):
        page.browser.set_window_size(width, 700)
        letters = page.browser.execute_script("return [...document.querySelectorAll('td')].map((cell) => cell.clientWidth)")
        assert len(letters) == 20 and min(letters) > 60
        assert page.browser.execute_script("return talk.scrollWidth === talk.clientWidth")
    table_box = page.find("article .table")
    assert (table_box.aria_role, table_box.accessible_name) == ("group", "Table")
    page.find("article .table").send_keys(Keys.ARROW_RIGHT)
    wait_until(lambda: page.find("article .table").get_property("scrollLeft") > 0, "the table to scroll")


def test_cells_of_a_table_stand_at_the_side_it_names(page: Page, start: Start) -> None:
    table = "|left|right|middle|none|\n|:-|-:|:-:|-|\n|a|1|b|c|\n"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=table), END])))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    for cells, usual in (("th", "center"), ("td", "start")):
        assert [cell.value_of_css_property("text-align") for cell in page.all(cells)] == ["left", "right", "center", usual]
    assert page.complaints() == []


def test_tokens_that_the_server_behind_does_not_count_are_not_said_to_be_none(page: Page, start: Start) -> None:
    usage = Usage(prompt_tokens=0, completion_tokens=0, prefill_seconds=0.1, decode_seconds=0.1, is_counted=False)
    script = [Chunk(text="a word"), Chunk(text="", finish_reason="stop", usage=usage)]
    page.open(start(Responder("far", ScriptedEngine(lambda: iter(script)))))
    page.ask("hello")
    page.until("article[aria-busy=false].assistant .facts", "tokens not told")
    assert page.complaints() == []


def test_a_link_of_a_page_of_elsewhere_leads_to_this_page_and_its_pictures_load_no_model(page: Page, start: Start) -> None:
    """To a browser `localhost` is another site than 127.0.0.1. No log of its console is to be clean: a picture is refused."""
    loaded: list[str] = []

    def load() -> list[Responder]:
        loaded.append("fake")
        return [Responder("fake", FakeEngine())]

    url = start(Models(loaders=[Loader(names=("fake",), planned_bytes=1, load=load)], memory_bytes=1)).removesuffix("v1")
    page.browser.get(start(Responder("other", FakeEngine())).removesuffix("v1").replace("127.0.0.1", "localhost") + "health")
    ended = page.browser.execute_async_script(
        "const [url, done] = arguments; fetch(`${url}tokenizer_info?model=fake`, {mode: 'no-cors'}).finally(() => done(true))", url
    )
    assert (ended, loaded) == (True, [])
    page.browser.execute_script("location = arguments[0]", url)
    page.until("option", "fake")
    page.ask("one two")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    assert loaded == ["fake"]


def test_what_is_written_from_right_to_left_is_shown_so(page: Page, start: Start) -> None:
    text = "مرحبا!\n\n- البند (الأول).\n\n> שלום!\n\nEnglish.\n\n- one\n\n```\nمرحبا = 1\n```\n"
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=text), END])))))
    page.ask("مرحبا (كيف)!")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    shown = {
        one.text: page.browser.execute_script("return getComputedStyle(arguments[0]).direction", one)
        for one in page.all("article :is(p, li, pre)")
        if one.text
    }
    is_left_to_right = {"English.", "one", "مرحبا = 1", page.find("article .facts").text}
    assert shown == {text: "ltr" if text in is_left_to_right else "rtl" for text in shown}
    assert len(shown) == 7
    assert page.find("article.user .text").value_of_css_property("unicode-bidi") == "plaintext"
    assert [page.find(box).get_attribute("dir") for box in ("#question", "#system")] == ["auto", "auto"]


def test_escape_that_takes_a_korean_syllable_back_does_not_end_the_answer(page: Page, start: Start) -> None:
    with half_an_answer(page, start):
        for event in ("isComposing: true", "keyCode: 229"):
            page.browser.execute_script(
                f"question.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Escape', {event}, bubbles: true}}))"
            )
    page.until("article[aria-busy=false].assistant .facts", "9 tokens")


@pytest.mark.parametrize("page", ["ko-KR"], indirect=True)
def test_enter_that_ends_a_korean_syllable_sends_nothing(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    assert page.find("#send").text == "보내기"
    page.until("#model", "fake")
    page.find("#question").send_keys("안녕하세")
    for composing in ("true", "false"):
        event = f"new KeyboardEvent('keydown', {{key: 'Enter', isComposing: {composing}, bubbles: true, cancelable: true}})"
        page.browser.execute_script(f"document.getElementById('question').dispatchEvent({event})")
        assert len(page.all("article.user")) == (composing == "false")


@pytest.mark.parametrize(
    ("page", "made", "kept", "where"),
    [
        (
            "en-US",
            "written on the machine that serves this page.",
            "recognises stays on the server.",
            "on the server, small, it holds a phone number, which the policy keeps from the cloud",
        ),
        ("ko-KR", "답변은 이 페이지를 제공하는 서버 컴퓨터에서 만듭니다.", "들어 있으면 서버에 남고", "서버 컴퓨터, small, "),
    ],
    indirect=["page"],
)
def test_whoever_comes_from_another_machine_is_not_told_that_what_they_write_stays_on_theirs(
    page: Page, start: Start, made: str, kept: str, where: str
) -> None:
    sides = [Responder(ref, ScriptedEngine(lambda: iter([Chunk(text="a"), END]))) for ref in ("small", "http://other:1/v1#big")]
    auto = RouterEngine(Policy(local="small", cloud="http://other:1/v1#big", default="cloud"), *sides, learned=None)
    page.open(start({"fake": Responder("fake", FakeEngine()), "auto": Responder("auto", auto)}))
    page.until("#about", made)
    Select(page.find("#model")).select_by_value("auto")
    page.until("#about", kept)
    page.ask("010-1234-5678")
    page.until("article.assistant .facts", where)


@pytest.mark.parametrize(
    ("page", "said"), [("en-US", "base has no chat template"), ("ko-KR", "base에는 대화 템플릿이 없습니다.")], indirect=["page"]
)
def test_a_model_that_does_not_chat_is_not_asked_nor_loaded_and_another_may_be_chosen(page: Page, start: Start, said: str) -> None:
    loads: list[str] = []
    base = Loader(names=("base",), planned_bytes=1, load=lambda: loads.append("base") or [], chats=lambda name: False)
    page.open(start(Models({"fake": Responder("fake", FakeEngine())}, [base], memory_bytes=1)))
    page.until("#model", "base")
    Select(page.find("#model")).select_by_value("base")
    page.until("#about", said)
    page.ask("one two")
    wait_until(lambda: page.browser.switch_to.active_element == page.find("#model"), "the focus to go where another is chosen")
    assert (page.all("article"), loads) == ([], [])
    Select(page.find("#model")).select_by_value("fake")
    page.find("#send").click()
    page.until("article.assistant .text", "two one")


def test_a_visitor_begins_with_a_model_that_chats_and_is_sent_to_no_other_where_there_is_none(page: Page, start: Start) -> None:
    base, other = (Loader(names=(name,), planned_bytes=1, load=list, chats=lambda name: False) for name in ("base", "other"))
    page.open(start(Models({}, [base], memory_bytes=1)))
    page.until("#about", "cannot be talked to.")
    assert "Choose another" not in page.find("#about").text
    fake = Loader(names=("fake",), planned_bytes=1, load=lambda: [Responder("fake", FakeEngine())], is_local=lambda: True)
    page.begin_anew()
    page.open(start(Models({}, [base, fake, other], memory_bytes=1)))
    page.ask("one two")
    page.until("article.assistant .text", "two one")
    Select(page.find("#model")).select_by_value("other")
    page.until("#about", "cannot be talked to. Choose another model.")


def test_a_visitor_begins_with_no_model_of_elsewhere_unless_it_is_the_first(page: Page, start: Start) -> None:
    base = Loader(names=("base",), planned_bytes=1, load=list, chats=lambda name: False, is_local=lambda: True)
    cloud = Loader(names=("cloud",), planned_bytes=0, load=list, is_local=lambda: False)
    fake = Loader(names=("fake",), planned_bytes=1, load=list, chats=lambda name: True, is_local=lambda: True)
    for served, said in (
        ([base, cloud, fake], "written on the machine that serves this page"),
        ([base, cloud], "base has no chat template: it completes texts, and cannot be talked to. Choose another model."),
        ([cloud, fake], "cloud runs on another server"),
    ):
        page.begin_anew()
        page.open(start(Models({}, served, memory_bytes=1)))
        page.until("#about", said)


@pytest.mark.parametrize("page", ["en-US", "ko-KR"], indirect=True)
def test_the_buttons_take_no_row_more_where_there_is_little_room(page: Page, start: Start) -> None:
    page.open(start(Responder("smollm2-135m-instruct", FakeEngine())))
    page.until("#model", "smollm2")
    set_viewport(page.browser, 360, 640)
    assert len({button.location["y"] for button in page.all("header button")}) == 1
    assert page.find("#fresh").location["y"] - page.find("#model").location["y"] < 60
    assert page.find("#fresh").accessible_name in ("New conversation", "새 대화")


@pytest.mark.parametrize("page", ["ko-KR"], indirect=True)
def test_the_korean_page_says_in_korean_what_may_be_done_with_a_model_and_where_auto_went(page: Page, start: Start) -> None:
    policy = Policy(local="small", cloud="http://other:1/v1#big", default="cloud")
    sides = [Responder(ref, ScriptedEngine(lambda: iter([Chunk(text="a"), END]))) for ref in ("small", "http://other:1/v1#big")]
    auto = RouterEngine(policy, *sides, learned=None)
    page.open(start(Responder("auto", auto)))
    page.until("#about", "입력한 내용과 지금까지의 대화가 정책에 적힌 클라우드로 전송될 수 있습니다.")
    shown = {
        "yes, if (Llama 3.1 Community License)": "조건부 가능 (Llama 3.1 Community License)",
        "yes, with use restrictions (Gemma Terms of Use)": "가능(용도 제한 있음) (Gemma Terms of Use)",
        "yes, if, with use restrictions (A, B)": "조건부 가능(용도 제한 있음) (A, B)",
        "no (Creative Commons BY-NC 4.0)": "불가 (Creative Commons BY-NC 4.0)",
        "unknown": "알 수 없음",
        "yes (Apache License 2.0, your own data)": "가능 (Apache License 2.0, 직접 준비한 데이터)",
        "unknown (terms not known)": "알 수 없음 (조건을 알 수 없음)",
        "local: yes (Apache License 2.0); cloud: unknown": "서버 컴퓨터: 가능 (Apache License 2.0); 클라우드: 알 수 없음",
    }
    page.open(start({f"model-{at}": Responder("auto", auto, licence=licence) for at, licence in enumerate(shown)}))
    for at, korean in enumerate(shown.values()):
        page.until("#model", f"model-{at}")
        page.find(f"#model option:nth-child({at + 1})").click()
        page.until("#about", f"상업적 이용: {korean}.")
    page.ask("010-1234-5678")
    page.until("article.assistant .facts", "서버 컴퓨터, small, 정책이 밖으로 내보내지 않는 개인정보가 들어 있음")


@pytest.mark.usefixtures("online")  # the cloud is an engine of this process
def test_an_answer_of_auto_that_is_stopped_or_fails_says_where_its_question_went(page: Page, start: Start) -> None:
    def failing(*words: str) -> Iterator[Chunk]:
        yield from (Chunk(text=word) for word in words)
        raise RemoteError("the cable was cut")

    answers = iter([endless(threading.Event(), threading.Event()), failing(), failing("half ")])
    policy = Policy(local="small", cloud="http://other:1/v1#big", default="cloud")
    sides = Responder("small", FakeEngine()), Responder("http://other:1/v1#big", ScriptedEngine(lambda: next(answers)))
    page.open(start(Responder("auto", RouterEngine(policy, *sides, learned=None))))
    page.ask("one")
    page.until("article.assistant .text", "word word word")
    page.browser.refresh()
    page.until("article.assistant .facts", "stopped · in the cloud, http://other:1/v1#big, no router")
    for number, question in enumerate(["two", "three"], start=2):
        page.ask(question)
        wait_until(lambda number=number: len(page.all(".wrong:not(:empty)")) == number - 1, "the failure")
        page.until("article.assistant .facts", "in the cloud, http://other:1/v1#big, no router")
        assert "stopped" not in page.all("article.assistant .facts")[-1].text


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("page", "said"),
    [("en-US", "stopped · before the server said where the question went"), ("ko-KR", "멈춤 · 질문이 어디로 갔는지 서버가 알리기 전")],
    indirect=["page"],
)
def test_a_question_of_auto_that_is_stopped_before_the_cloud_answers_is_not_said_to_have_stayed(
    page: Page, start: Start, said: str
) -> None:
    def silent() -> Iterator[Chunk]:
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    go_on = threading.Event()
    policy = Policy(local="small", cloud="http://other:1/v1#big", default="cloud")
    cloud = ScriptedEngine(silent)
    sides = Responder("small", FakeEngine()), Responder("http://other:1/v1#big", cloud)
    page.open(start(Responder("auto", RouterEngine(policy, *sides, learned=None))))
    try:
        for number, leave in enumerate((page.find("#send").click, page.browser.refresh), start=1):
            page.ask("one")
            wait_until(lambda number=number: len(cloud.asked) == number, "the question to be sent on")
            leave()
            wait_until(lambda number=number: len(page.all("article[aria-busy=false].assistant")) == number, "the end")
            assert said in page.all("article.assistant .facts")[-1].text
    finally:
        go_on.set()


@pytest.mark.usefixtures("online")
def test_an_attempt_of_auto_that_fails_elsewhere_says_so_beside_the_answer_that_stays(page: Page, start: Start) -> None:
    def failing() -> Iterator[Chunk]:
        yield from ()
        raise RemoteError("the cable was cut")

    policy = Policy(local="small", cloud="http://other:1/v1#big", default="cloud")
    sides = Responder("small", FakeEngine()), Responder("http://other:1/v1#big", ScriptedEngine(failing))
    page.open(start(Responder("auto", RouterEngine(policy, *sides, learned=None))))
    page.browser.execute_script("document.getElementById('system').value = 'Call 010-1234-5678.'")
    page.ask("one two")
    page.until("article[aria-busy=false].assistant .facts", "on the server, small")
    page.browser.execute_script("document.getElementById('system').value = ''")
    page.find(".again").click()
    page.until("article.assistant .wrong", "the cable was cut")
    assert "in the cloud, http://other:1/v1#big" in page.find("article.assistant .wrong").text
    page.until("article[aria-busy=false].assistant .facts", "on the server, small")


def test_stop_ends_the_answer_and_keeps_what_was_written(page: Page, start: Start) -> None:
    closed = threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(lambda: endless(threading.Event(), closed)))))
    page.ask("go")
    page.until("article.assistant .text", "word word word")
    page.find("#send").click()
    page.until("article[aria-busy=false].assistant .facts", "stopped")
    written = page.find("article.assistant .text").text
    assert closed.wait(PATIENCE_SECONDS)
    assert page.find("article.assistant .text").text == written
    assert page.find("#send").text == "Send"


def test_an_error_is_shown_and_the_question_may_be_asked_again(page: Page, start: Start) -> None:
    tries: list[int] = []

    def fails_once() -> Iterator[Chunk]:
        tries.append(1)
        yield Chunk(text="half ")
        if len(tries) == 1:
            raise RemoteError("the cable was cut")
        yield END

    page.open(start(Responder("fake", ScriptedEngine(fails_once))))
    page.ask("go")
    page.until("article.assistant .wrong", "the cable was cut")
    page.all("article.assistant .facts button")[-1].click()
    page.until("article.assistant .facts", "9 tokens")
    assert len(page.all("article.assistant")) == 1


def test_another_answer_is_asked_for_by_keyboard_and_stopped_where_the_focus_is(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", ScriptedEngine(lambda: endless(threading.Event(), threading.Event())))))
    page.ask("go")
    for _ in range(2):
        page.until("article.assistant:last-child .text", "word word")
        page.find("#send").send_keys(Keys.ENTER)
        page.until("article[aria-busy=false].assistant .facts", "stopped")
        page.find(".again").send_keys(Keys.ENTER)
        assert page.browser.switch_to.active_element == page.find("#send")
        page.until("#send", "Stop")
    page.find("#send").click()


def test_the_question_s_box_shows_its_whole_text_also_when_the_window_gets_narrower(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    heights = []
    for width in (900, 400):
        page.browser.set_window_size(width, 700)
        is_whole = "return [innerWidth, question.scrollHeight - question.clientHeight, question.clientHeight]"
        wait_until(lambda: page.browser.execute_script(is_whole)[:2] == [width, 0], f"a box that fits at {width}")  # noqa: B023
        heights.append(page.browser.execute_script(is_whole)[2])
    assert heights[1] > heights[0]


@pytest.mark.parametrize(("page", "said"), [("en-US", "Tuned on a table"), ("ko-KR", "표로 튜닝한 모델")], indirect=["page"])
def test_a_model_tuned_on_a_table_is_told_and_asked_by_itself_in_its_words_unless_that_is_unticked(
    page: Page, start: Start, said: str
) -> None:
    engine = Asked()
    question = "Which {text}?\n\nText: {text}\nLabel:"
    whole = "Which {text}?\n\nText: x\nLabel:"
    page.open(start({"plain": Responder("plain", FakeEngine()), "t": Responder("t", engine, question=question)}))
    page.until("#model", "t")
    assert said not in page.find("#about").text and not page.find("#words").is_displayed()
    Select(page.find("#model")).select_by_value("t")
    assert said in page.find("#about").text

    def ask(text: str, number: int) -> None:
        page.ask(text)
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == number, "the answer")

    assert page.find("#as-tuned").is_selected()
    ask("x", 1)
    assert page.all("article.user .text")[-1].text == whole
    page.find("#as-tuned").click()
    page.browser.refresh()
    page.until("#about", said)
    assert not page.find("#as-tuned").is_selected()
    ask("y", 2)
    assert engine.conversations == [[whole], ["y"]]
    assert [request.temperature for request in engine.asked] == [0, 0.7]


def test_a_text_that_looks_as_a_question_of_no_words_is_put_into_it(page: Page, start: Start) -> None:
    engine = Asked()
    page.open(start(Responder("t", engine, question='"{text}"')))
    page.until("#model", "t")
    page.ask('"Great," she said, "buy it"')
    wait_until(lambda: page.all("article[aria-busy=false].assistant"), "the answer")
    assert engine.conversations == [['""Great," she said, "buy it""']]


def test_a_question_that_begins_with_the_text_is_put_about_it_unless_it_was_typed_whole(page: Page, start: Start) -> None:
    engine = Asked()
    page.open(start(Responder("t", engine, question="{text}\nLabel:")))
    page.until("#model", "t")
    for number, text in enumerate(("x", "y Label:"), start=1):
        page.ask(text)
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == number, "the answer")  # noqa: B023
    page.browser.execute_script("document.querySelector('#question').value = 'z\\nLabel:'")
    page.find("#send").click()
    wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == 3, "the answer")
    assert engine.conversations == [["x\nLabel:"], ["y Label:\nLabel:"], ["z\nLabel:"]]


@pytest.mark.parametrize(
    ("question", "typed", "asked"),
    [
        ("{text}\n1-5:", "fine\n1-5:", "fine\n1-5:"),
        ("### {text}\n###", "### fine\n###", "### fine\n###"),
        ("⭐ {text} ⭐?", "⭐ fine ⭐?", "⭐ fine ⭐?"),
        ("{text} =>", "fine =>", "fine =>"),
        ("{text} ->", "fine ->", "fine ->"),
        ("{text}?\n", "fine?", "fine??\n"),
        ("<{text}>", "<b>fine</b>", "<<b>fine</b>>"),
        ("`{text}`", "`a` or `b`", "``a` or `b``"),
        ("\n{text}\n", "fine", "\nfine\n"),
    ],
)
def test_a_question_without_letters_is_known_as_typed_whole_by_all_but_punctuation(
    page: Page, start: Start, question: str, typed: str, asked: str
) -> None:
    engine = Asked()
    page.open(start(Responder("t", engine, question=question)))
    page.until("#model", "t")
    page.browser.execute_script("document.querySelector('#question').value = arguments[0]", typed)
    page.find("#send").click()
    wait_until(lambda: page.all("article[aria-busy=false].assistant"), "the answer")
    assert engine.conversations == [[asked]]


def test_what_is_saved_are_conversations_with_an_answer_which_tune_reads(page: Page, start: Start, tmp_path: Path) -> None:
    answers = iter([[Chunk(text="fine"), END], [END]])
    engine = ScriptedEngine(lambda: iter(next(answers)))
    page.open(start(Responder("t", engine, question="Text: {text}\nLabel:")))
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.until("#model", "t")
    page.find("#save").click()
    for number, text in enumerate(("x", "y"), start=1):
        page.ask(text)
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == number, "the answer")  # noqa: B023
    saved = tmp_path / "conversation.jsonl"
    assert not saved.exists(), "there was nothing to save"
    page.find("#save").click()
    wait_until(saved.exists, "the file")
    (lesson,) = read(saved).lessons
    assert [message.content for message in lesson.messages] == ["Text: x\nLabel:", "fine"]


def test_a_speed_is_told_of_what_came_bit_by_bit_alone(page: Page, start: Start) -> None:
    def bit_by_bit() -> Iterator[Chunk]:
        for word in "abc":
            yield Chunk(text=word)
            time.sleep(0.3)
        yield END

    at_once = Responder("at-once", ScriptedEngine(lambda: iter([Chunk(text="a b c d e f g h i"), END])))
    page.open(start({"at-once": at_once, "bits": Responder("bits", ScriptedEngine(bit_by_bit))}))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "9 tokens")
    assert "a second" not in page.find("article.assistant .facts").text
    Select(page.find("#model")).select_by_value("bits")
    page.ask("go")
    page.until("article[aria-busy=false].assistant:last-child .facts", "a second")


@pytest.mark.parametrize(
    ("page", "said"), [("en-US", "The server cannot be reached."), ("ko-KR", "서버에 연결할 수 없습니다.")], indirect=["page"]
)
def test_a_server_that_is_gone_in_mid_answer_is_said_to_be(page: Page, start: Start, said: str) -> None:
    breaks_off = """
        const half = new TextEncoder().encode('data: {"choices": [{"delta": {"content": "half"}}]}\\n\\n');
        const body = new ReadableStream({
            start(controller) { controller.enqueue(half); },
            pull(controller) { setTimeout(() => controller.error(new TypeError("network error")), 100); },
        }, { highWaterMark: 0 });
        const real = window.fetch;
        window.fetch = async (path, ...rest) => (path === "v1/chat/completions" ? new Response(body) : real(path, ...rest));
    """
    page.open(start(Responder("fake", FakeEngine())))
    page.until("#model", "fake")
    page.browser.execute_script(breaks_off)
    page.ask("go")
    page.until("article.assistant .wrong", said)
    assert "network error" not in page.find("article.assistant .wrong").text
    page.until("article.assistant .text", "half")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            "en-US",
            {
                429: "Too many questions in a short time.", 413: "What was sent is too long.", 502: "The server cannot be reached.",
                503: "The server is busy, or not running.", 504: "The server took too long to answer.",
                403: "The request was not answered.",
            },
        ),
        (
            "ko-KR",
            {
                429: "짧은 시간에 질문이 너무 많았습니다.", 413: "보낸 내용이 너무 깁니다.", 502: "서버에 연결할 수 없습니다.",
                503: "서버가 바쁘거나 실행되고 있지 않습니다.", 504: "서버가 제때 답하지 못했습니다.",
                403: "요청을 처리하지 못했습니다.",
            },
        ),
    ],
    indirect=["page"],
)  # fmt: skip
def test_what_a_proxy_refuses_in_its_own_form_is_said_by_its_status(page: Page, start: Start, said: dict[int, str]) -> None:
    refuses = """
        const real = window.fetch;
        const bodies = ["<html>no</html>", '{"message": "no"}', '{"error": "no"}', "null"];
        window.fetch = async (path, ...rest) =>
            path === "v1/chat/completions" ? new Response(bodies[window.turn++ % 4], { status: window.status_ }) : real(path, ...rest);
        window.turn = 0;
    """
    page.open(start(Responder("fake", FakeEngine())))
    page.until("#model", "fake")
    page.browser.execute_script(refuses)
    for status, words in said.items():
        page.browser.execute_script("window.status_ = arguments[0]", status)
        page.ask("go")
        page.until("article.assistant:last-child .wrong", words)
        page.until("article.assistant:last-child .wrong", f"(HTTP {status})")


@pytest.mark.parametrize("page", ["ko-KR"], indirect=True)
def test_errors_are_said_in_korean_with_the_servers_own_words_behind(page: Page, start: Start) -> None:
    def breaks_off() -> Iterator[Chunk]:
        yield Chunk(text="half ")
        raise RemoteError("the cable was cut")

    def has_no_quota() -> Iterator[Chunk]:
        raise RemoteError("see your plan", status=429, code="insufficient_quota")
        yield END

    def refuses() -> Iterator[Chunk]:
        raise RemoteError("no such size", status=400, code="size_not_supported")
        yield END

    scripts = {"far": breaks_off, "full": has_no_quota, "fussy": refuses}
    others = {name: Responder(name, ScriptedEngine(script)) for name, script in scripts.items()}
    page.open(start({"short": Responder("short", FakeEngine(context_tokens=2)), **others}))
    page.until("#model", "short")
    page.ask("a b c d")
    page.until(
        "article.assistant .wrong", "모델이 한 번에 읽을 수 있는 길이를 넘었습니다. 새 대화를 시작하거나 내용을 줄이세요. (This "
    )
    for name, said in {
        "far": "모델이 실행되는 다른 서버에서 오류가 났습니다. (the cable was cut)",
        "full": "요청이 너무 많거나 사용 한도를 넘었습니다. (see your plan)",
        "fussy": "요청을 처리하지 못했습니다. (no such size)",
    }.items():
        Select(page.find("#model")).select_by_value(name)
        page.ask("go")
        page.until("article.assistant:last-child .wrong", said)
        page.until("#send", "보내기")


def test_a_server_with_a_key_is_asked_with_the_one_that_is_typed(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine()), api_key="k3y"))
    page.until("#about", "asks for its API key")
    assert page.browser.switch_to.active_element == page.find("#key")
    is_seen = "const {left, top} = about.getBoundingClientRect(); return document.elementFromPoint(left + 1, top + 1) === about"
    page.browser.set_window_size(360, 700)
    assert page.browser.execute_script(is_seen)  # what is wrong stands above the settings
    page.browser.set_window_size(*SIZE)  # where they leave the question's box free to be clicked
    for key, said in {"비밀": "holds characters that cannot be sent", "other": "This is not the API key of this server."}.items():
        page.find("#key").send_keys(key, Keys.TAB)
        page.until("#about", said)
        wait_until(lambda: page.browser.switch_to.active_element == page.find("#key"), "the box to be opened again")
        page.find("#key").clear()
    page.find("#key").send_keys("비밀", Keys.TAB)
    page.until("#about", "holds characters that cannot be sent")
    page.find("#key").clear()
    page.find("#key").send_keys("another")
    page.find("#question").click()
    page.until("#about", "This is not the API key of this server.")
    assert page.browser.switch_to.active_element == page.find("#question")  # where something is typed by now
    assert not page.find("#settings").get_property("open")
    page.find("#settings summary").click()
    page.find("#key").clear()
    page.find("#key").send_keys("k3y", Keys.ENTER)
    page.until("#about", "Nothing is sent anywhere else")
    wait_until(lambda: not page.find("#settings").get_property("open"), "the settings to be closed")
    page.browser.switch_to.active_element.send_keys("one two", Keys.ENTER)
    page.until("article.assistant .text", "two one")


def test_the_settings_close_by_escape_by_a_click_elsewhere_and_when_the_keyboard_leaves_them(page: Page, start: Start) -> None:
    closed = threading.Event()
    page.open(start(Responder("fake", ScriptedEngine(lambda: endless(threading.Event(), closed)))))
    page.ask("go")
    page.until("article.assistant .text", "word word word")
    settings, summary = page.find("#settings"), page.find("#settings summary")
    leave: list[Callable[[], object]] = [
        lambda: page.find("#system").send_keys("Be brief.", Keys.ESCAPE),
        lambda: page.find("#talk").click(),
        lambda: page.find("#key").send_keys(Keys.TAB),
    ]
    for leaves in leave:
        summary.click()
        assert settings.get_property("open")
        leaves()
        wait_until(lambda: not settings.get_property("open"), "the settings to be closed")
    assert not closed.is_set() and page.find("#send").text == "Stop"
    page.find("#question").send_keys(Keys.ESCAPE)
    page.until("article[aria-busy=false].assistant .facts", "stopped")
    assert "Be brief." in page.browser.execute_script("return sessionStorage.getItem('nomoat')")


def test_settings_that_cannot_be_meant_are_shown_and_nothing_is_asked(page: Page, start: Start) -> None:
    engine = ScriptedEngine(lambda: iter([Chunk(text="a"), END]))
    page.open(start(Responder("fake", engine)))
    page.until("#model", "fake")
    for box, wrong in (("limit", "0"), ("limit", "1.5"), ("temperature", "5")):
        page.browser.execute_script(f"{box}.value = '{wrong}'")
        page.ask("go")
        assert page.find("#settings").get_property("open")
        assert page.browser.switch_to.active_element == page.find(f"#{box}")
        page.browser.execute_script(f"{box}.value = ''; question.value = ''")
    assert page.all("article") == [] and engine.asked == []


def test_a_temperature_that_is_left_empty_is_that_of_the_server(page: Page, start: Start) -> None:
    engine = ScriptedEngine(lambda: iter([Chunk(text="a"), END]))
    page.open(start(Responder("fake", engine)))
    page.until("#model", "fake")
    for typed in ("", "0", "0.75"):
        page.browser.execute_script(f"temperature.value = '{typed}'")
        page.ask("go")
        page.until("article[aria-busy=false].assistant:last-child .facts", "tokens")
    assert [request.temperature for request in engine.asked] == [1, 0, 0.75]


def test_that_a_model_is_on_another_server_is_said_before_anything_is_sent(page: Page, start: Start) -> None:
    page.open(start(from_references(["https://llm.example/v1#m", "fake:"])))
    said = "runs on another server: what you write, and this conversation so far, is sent there."
    page.until("#about", f"https://llm.example/v1#m {said}")
    Select(page.find("#model")).select_by_value("fake:")
    page.until("#about", "Nothing is sent anywhere else")
    page.ask("one two")
    page.until("article.assistant .text", "two one")


def test_a_conversation_goes_to_no_model_that_was_not_chosen_where_the_chosen_one_is_gone(page: Page, start: Start) -> None:
    engines = {name: ScriptedEngine(lambda: iter([Chunk(text="fine"), END])) for name in ("other", "mine")}
    models = Models({name: Responder(name, engine) for name, engine in engines.items()})
    page.open(start(models))
    page.until("#model", "mine")
    Select(page.find("#model")).select_by_value("mine")
    page.ask("one")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    mine = models._units.pop("mine")
    page.ask("two")
    page.until("article.assistant:last-child .wrong", "there is no model `mine` here")
    for _ in range(2):  # as it is, and loaded anew
        page.until("#about", "mine is not on this server any more. Choose a model.")
        assert page.find("#model").get_property("value") == "mine"
        page.find("article:last-child .again").click()
        page.ask("three")
        wait_until(lambda: page.browser.switch_to.active_element == page.find("#model"), "the focus to go where one is chosen")
        assert page.find("#question").get_property("value") == "three"
        assert len(page.all("article")) == 4
        page.browser.refresh()
        page.until("article[aria-busy=false].assistant .facts", "Again")
        page.find("#question").clear()
    models._units["mine"] = mine
    page.ask("three")
    page.until("article[aria-busy=false].assistant:last-child .facts", "tokens")
    models._units.pop("mine")
    page.browser.refresh()
    page.until("#about", "Choose a model.")
    assert engines["other"].asked == []
    Select(page.find("#model")).select_by_value("other")
    page.until("#about", "Nothing is sent anywhere else")
    page.ask("four")
    wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == 4, "the answer")
    assert engines["other"].conversations == [["one", "fine", "three", "fine", "four"]]
    assert [one.text for one in Select(page.find("#model")).options] == ["other"]


def test_the_models_of_servers_are_listed_without_addresses_where_that_tells_them_apart(page: Page, start: Start) -> None:
    named = {
        "http://a.example/v1#m": "m",
        "http://a.example/v1#x": "http://a.example/v1#x",
        "http://b.example/v1#x": "http://b.example/v1#x",
    }
    page.open(start(Models(loaders=[Loader(names=(name,), planned_bytes=0, load=list) for name in named], memory_bytes=0)))
    page.until("#model", "m")
    assert {one.get_property("value"): one.text for one in Select(page.find("#model")).options} == named
    assert page.find("#model").get_property("title") == "http://a.example/v1#m"


def test_the_page_says_that_the_model_is_loaded_and_goes_on_by_itself_once_it_is(page: Page, start: Start) -> None:
    listener = bind("127.0.0.1", 0)
    with saying_that_it_loads(listener, api_key=None, cors=()) as hand_over:
        page.open(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        page.until("#about", "the model is loading")
        page.ask("one two")
        hand_over()
        start(Responder("fake", FakeEngine()), listener=listener)
        page.until("#about", "Nothing is sent anywhere else")
    page.ask("")
    page.until("article[aria-busy=false].assistant .text", "two one")


def test_a_question_sent_before_the_models_are_listed_is_asked_once_they_are(page: Page, start: Start) -> None:
    page.browser.execute_cdp_cmd("Network.enable", {})
    slow = {"offline": False, "latency": 1000, "downloadThroughput": -1, "uploadThroughput": -1}
    engine = Asked()
    page.open(start(Responder("fake", engine)))
    page.until("#model", "fake")
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    page.browser.execute_script("model.replaceChildren()")
    page.find("#question").send_keys("one two", Keys.ENTER, Keys.ENTER)
    page.until("article[aria-busy=false].assistant .text", "two one")
    assert engine.conversations == [["one two"]]


def test_an_attempt_that_brings_nothing_leaves_the_answer_there_was(page: Page, start: Start) -> None:
    def answers() -> Iterator[Chunk]:
        number = len(engine.asked)
        if number == 2:
            raise RemoteError("the cable was cut")
        if number == 3:
            assert go_on.wait(PATIENCE_SECONDS)
        if number != 4:
            yield Chunk(text="**fine**" if number == 1 else "well")
        yield END

    go_on = threading.Event()
    engine = ScriptedEngine(answers)
    page.open(start(Responder("fake", engine)))
    page.ask("one")
    page.until("article[aria-busy=false].assistant strong", "fine")
    page.find(".again").click()
    page.until("article.assistant .wrong", "the cable was cut")
    page.until("article[aria-busy=false].assistant strong", "fine")
    assert "9 tokens" in page.find("article.assistant .facts").text
    page.find(".again").click()
    try:
        wait_until(lambda: len(engine.asked) == 3, "the third attempt")
        assert page.all("article.assistant strong") == []
        page.browser.refresh()  # and so does one during which the page is loaded anew
        page.until("article[aria-busy=false].assistant strong", "fine")
    finally:
        go_on.set()
    page.find(".again").click()
    wait_until(lambda: len(engine.asked) == 4, "the fourth attempt")
    page.until("article[aria-busy=false].assistant strong", "fine")
    page.ask("two")
    page.until("article[aria-busy=false].assistant:last-child .text", "well")
    assert engine.conversations[-1] == ["one", "**fine**", "two"]


def test_code_is_copied_without_a_line_end_that_a_terminal_would_take_for_enter(page: Page, start: Start) -> None:
    script = [Chunk(text="```sh\nls \\\n  -l\n```\n\n    pwd\n"), END]
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter(script)))))
    page.browser.execute_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    for number, code in enumerate(("ls \\\n  -l", "pwd")):
        page.all("article .code button")[number].click()
        page.find("#question").send_keys(Keys.CONTROL, "v")
        assert page.find("#question").get_property("value") == code
        page.find("#question").clear()


def test_the_button_of_code_hides_none_of_it(page: Page, start: Start) -> None:
    script = [Chunk(text=f"```sh\npip install {'long-name ' * 30}\n```\n\n```\nls\n```\n"), END]
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter(script)))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    below = """return [...document.querySelectorAll('.code')].map((place) =>
        place.querySelector('code').getClientRects()[0].top - place.querySelector('button').getBoundingClientRect().bottom)"""
    for width in (900, 360):
        page.browser.set_window_size(width, 700)
        distances = page.browser.execute_script(below)
        assert len(distances) == 2 and min(distances) >= 0


def test_letters_of_code_and_links_stand_as_they_are_written_also_behind_words_that_turn_them(page: Page, start: Start) -> None:
    script = [Chunk(text="abc \u202e `paypal` [paypal](https://evil.example) abc"), END]
    page.open(start(Responder("fake", ScriptedEngine(lambda: iter(script)))))
    page.ask("go")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    first_letters = """const ends = (node) => [0, 5].map((at) => {
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + 1);
            return range.getBoundingClientRect().left;
        });
        return [...document.querySelectorAll('article.assistant :is(code, a)')].map((place) => ends(place.firstChild))"""
    assert [first < last for first, last in page.browser.execute_script(first_letters)] == [True, True]


@pytest.mark.parametrize(("page", "said"), [("en-US", "Ask something."), ("ko-KR", "무엇이든 물어보세요.")], indirect=["page"])
def test_enter_of_a_telephone_s_keyboard_is_a_new_line(page: Page, start: Start, said: str) -> None:
    page.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    set_viewport(page.browser, 390, 800, is_mobile=True)
    engine = Asked()
    page.open(start(Responder("fake", engine)))
    page.until("#model", "fake")
    assert page.find("#question").get_attribute("placeholder") == said
    page.find("#question").send_keys("one", Keys.ENTER, "two")
    assert page.find("#question").get_property("value") == "one\ntwo"
    page.find("#send").click()
    wait_until(lambda: engine.questions, "the question")
    assert engine.questions == ["one\ntwo"]


def test_a_screen_reader_is_told_where_what_is_written_goes_once_and_what_the_parts_are(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    page.until("#about", "Nothing is sent anywhere else")
    assert page.find("#about").get_attribute("role") == "status"
    assert [page.find(box).get_attribute("aria-describedby") for box in ("#model", "#key")] == ["about", "about"]
    assert page.find("#talk").get_attribute("aria-label") == "Conversation"
    page.browser.execute_script("window.told = about.firstChild")
    page.ask("one")
    page.until("article[aria-busy=false].assistant .facts", "tokens")
    listings = "return performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('v1/models')).length"
    wait_until(lambda: page.browser.execute_script(listings) == 2, "the models to be listed anew")
    assert page.browser.execute_script("return window.told === about.firstChild"), "it would be read again behind each answer"


def test_a_screen_reader_does_not_read_old_answers_after_a_reload(page: Page, start: Start) -> None:
    watch = """window.busy = [];
        new MutationObserver((changes) => {
            for (const { target } of changes) if (target.closest?.('#talk')) window.busy.push(talk.ariaBusy);
        }).observe(document, { childList: true, subtree: true })"""
    page.open(start(Responder("fake", FakeEngine())))
    for number in (1, 2):
        page.ask("one two **three**")
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant strong")) == number, "the answer")  # noqa: B023
    page.browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
    page.browser.refresh()
    wait_until(lambda: len(page.all("article[aria-busy=false].assistant strong")) == 2, "the answers")
    wait_until(lambda: page.find("#talk").get_attribute("aria-busy") == "false", "the next answer to be read")
    changes = page.browser.execute_script("return window.busy")
    assert len(changes) > 5 and set(changes) == {"true"}


def test_old_answers_are_rendered_once_the_key_is_typed(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine()), api_key="k3y"))
    page.until("#about", "asks for its API key")
    page.find("#key").send_keys("k3y", Keys.ENTER)
    page.until("#about", "Nothing is sent anywhere else")
    page.ask("one **two**")
    page.until("article[aria-busy=false].assistant strong", "two")
    page.find("#settings summary").click()
    page.find("#key").clear()
    page.find("#key").send_keys("other", Keys.ENTER)
    page.until("#about", "This is not the API key of this server.")
    page.browser.refresh()
    page.until("article[aria-busy=false].assistant .text.plain", "**two** one")
    page.find("#key").clear()
    page.find("#key").send_keys("k3y", Keys.ENTER)
    page.until("article[aria-busy=false].assistant strong", "two")


def test_an_answer_that_was_broken_off_is_saved_as_one_that_is_not_learned(page: Page, start: Start, tmp_path: Path) -> None:
    def answers() -> Iterator[Chunk]:
        number = len(engine.asked)
        yield Chunk(text=f"answer {number}")
        if number == 2:
            raise RemoteError("the cable was cut")
        yield dataclasses.replace(END, finish_reason="length") if number == 1 else END

    def says_so() -> bool:
        for _ in range(2):
            page.find("#save").click()
        said = page.find("#about").text
        return (
            said.count("Nothing was saved: no answer was written to its end, and tuning") == 1
            and "Nothing is sent anywhere else" in said
        )

    engine = ScriptedEngine(answers)
    page.open(start(Responder("fake", engine)))
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.until("#model", "fake")
    saved = tmp_path / "conversation.jsonl"
    for number in range(1, 4):
        page.ask(f"question {number}")
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == number, "the answer")  # noqa: B023
        if number == 2:
            wait_until(says_so, "what is said of it, once, beside where answers are written")
    assert not saved.exists(), "there was nothing to learn"
    wait_until(lambda: "Nothing was saved" not in page.find("#about").text, "what was said of the save to go")
    page.find("#save").click()
    wait_until(saved.exists, "the file")
    (lesson,) = read(saved).lessons
    texts = [message.content for message in lesson.messages]
    assert texts == [f"{kind} {number}" for number in (1, 2, 3) for kind in ("question", "answer")]
    (line,) = (json.loads(text) for text in saved.read_text(encoding="utf-8").splitlines())
    assert [message.get("weight") for message in line["messages"]] == [None, 0, None, 0, None, None]


@pytest.mark.parametrize(
    ("page", "empty", "shown"),
    [
        (
            "en-US",
            "There is nothing to save yet. Answers are",
            "System message: Be brief.\n\nYou: 하나?\n\nAnswer: **half**\n\n- an item\n(9 tokens · ended at the limit)\n\n"
            "You: two\n\nAnswer: (the cable was cut)\n",
        ),
        (
            "ko-KR",
            "아직 저장할 대화가 없습니다. 답변은",
            "시스템 메시지: Be brief.\n\n나: 하나?\n\n답변: **half**\n\n- an item\n(9 토큰 · 길이 제한에서 끝남)\n\n"
            "나: two\n\n답변: (모델이 실행되는 다른 서버에서 오류가 났습니다. (the cable was cut))\n",
        ),
    ],
    indirect=["page"],
)
def test_what_the_page_shows_is_saved_as_a_text_also_where_no_answer_was_written_to_its_end(
    page: Page, start: Start, tmp_path: Path, empty: str, shown: str
) -> None:
    def answers() -> Iterator[Chunk]:
        if len(engine.asked) == 2:
            raise RemoteError("the cable was cut")
        yield Chunk(text="**half**\n\n- an item")
        yield dataclasses.replace(END, finish_reason="length")

    engine = ScriptedEngine(answers)
    page.open(start(Responder("fake", engine)))
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.until("#model", "fake")
    page.find("#save-text").click()
    page.until("#about", empty)
    page.browser.execute_script("system.value = 'Be brief.'")
    for number, question in enumerate(("하나?", "two"), start=1):
        page.ask(question)
        wait_until(lambda: len(page.all("article[aria-busy=false].assistant")) == number, "the answer")  # noqa: B023
    page.find("#save-text").click()
    saved = tmp_path / "conversation.txt"
    wait_until(saved.exists, "the file")
    assert saved.read_text(encoding="utf-8") == shown
    assert list(tmp_path.iterdir()) == [saved]


def test_the_words_in_an_empty_box_are_dark_enough_to_be_read(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    for scheme, soft in (("light", "rgb(95, 102, 112)"), ("dark", "rgb(154, 163, 173)")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        look = "const { color, opacity } = getComputedStyle(question, '::placeholder'); return [color, opacity]"
        assert page.browser.execute_script(look) == [soft, "1"]


def test_the_borders_of_boxes_are_dark_enough_to_be_seen_against_the_page_and_within(page: Page, start: Start) -> None:
    """3 : 1 (WCAG 2.2, 1.4.11)."""
    page.open(start(Responder("fake", FakeEngine())))
    look = """const [box, page] = [limit, document.body].map((one) => getComputedStyle(one));
        return [box.borderColor, box.backgroundColor, page.backgroundColor].map((color) => {
            const parts = color.match(/\\d+/g).map((part) => part / 255);
            const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        });"""
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        edge, *beside = page.browser.execute_script(look)
        assert all(max(edge, other) / min(edge, other) > 3 for other in beside)
