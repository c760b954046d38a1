"""The page in a real browser: Chromium, driven by Selenium."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from leaving import endless
from patience import PATIENCE_SECONDS, wait_until
from scripted import ScriptedEngine
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
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
from nomoat.serve.models import from_references
from nomoat.serve.web import as_html

Start = Callable[..., str]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"),
    pytest.mark.slow,
]
END = Chunk(text="", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=9, prefill_seconds=0.1, decode_seconds=0.1))


class Page:
    """A browser's tab with the page."""

    def __init__(self, language: str = "en-US") -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=900,700", f"--lang={language}"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))

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


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.browser.quit()


def test_enter_sends_and_the_answer_stands_below_with_what_it_took(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine())))
    page.ask("one two **three**")
    page.until("article.assistant .facts", "tokens")
    assert page.find("article.user").text == "one two **three**"
    assert page.find("article.assistant strong").text == "three"
    assert "Nothing is sent anywhere else" in page.find("#about").text
    page.ask("and four")
    page.until("article.assistant .text", "four and")
    page.browser.refresh()
    page.until("article.user", "and four")
    assert [one.text for one in page.all("article.user")] == ["one two **three**", "and four"]
    assert page.complaints() == []


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


class Renderings:
    """The server's renderer, with what each rendering does first; how many there were, and how many at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object]) -> None:
        self.begun = self.under_way = self.most_at_once = 0
        self._before = before
        self._lock = threading.Lock()
        monkeypatch.setattr("nomoat.serve.web.as_html", self._render)

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


def test_a_screen_reader_is_told_who_speaks_and_reads_an_answer_once_it_is_whole(page: Page, start: Start) -> None:
    go_on = threading.Event()

    def slow() -> Iterator[Chunk]:
        yield Chunk(text="half ")
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    page.open(start(Responder("fake", ScriptedEngine(slow))))
    page.ask("go")
    page.until("article.assistant .text", "half")
    answer = page.find("article.assistant")
    try:
        assert (answer.get_attribute("aria-label"), answer.get_attribute("aria-busy")) == ("Answer", "true")
        assert page.find("article.user").get_attribute("aria-label") == "You"
    finally:
        go_on.set()
    page.until("article.assistant .facts", "tokens")
    page.until("article[aria-busy=false].assistant .text", "half")


def test_enter_that_ends_a_korean_syllable_sends_nothing(start: Start) -> None:
    page = Page("ko-KR")
    try:
        page.open(start(Responder("fake", FakeEngine())))
        assert page.find("#send").text == "보내기"
        page.find("#question").send_keys("안녕하세")
        for composing in ("true", "false"):
            event = f"new KeyboardEvent('keydown', {{key: 'Enter', isComposing: {composing}, bubbles: true, cancelable: true}})"
            page.browser.execute_script(f"document.getElementById('question').dispatchEvent({event})")
            assert len(page.all("article.user")) == (composing == "false")
    finally:
        page.browser.quit()


def test_the_korean_page_says_in_korean_what_may_be_done_with_a_model_and_where_auto_went(start: Start) -> None:
    policy = Policy(local="small", cloud="http://other:1/v1#big", default="cloud")
    sides = [Responder(ref, ScriptedEngine(lambda: iter([Chunk(text="a"), END]))) for ref in ("small", "http://other:1/v1#big")]
    auto = RouterEngine(policy, *sides, learned=None)
    shown = {
        "yes, if (Llama 3.1 Community License)": "조건부 가능 (Llama 3.1 Community License)",
        "yes, with use restrictions (Gemma Terms of Use)": "가능(용도 제한 있음) (Gemma Terms of Use)",
        "no (Creative Commons BY-NC 4.0)": "불가 (Creative Commons BY-NC 4.0)",
        "unknown": "알 수 없음",
        "local: yes (Apache License 2.0); cloud: unknown": "이 기계: 가능 (Apache License 2.0); 클라우드: 알 수 없음",
    }
    page = Page("ko-KR")
    try:
        page.open(start({f"model-{at}": Responder("auto", auto, licence=licence) for at, licence in enumerate(shown)}))
        for at, korean in enumerate(shown.values()):
            page.until("#model", f"model-{at}")
            page.find(f"#model option:nth-child({at + 1})").click()
            page.until("#about", f"상업적 이용: {korean}.")
        page.ask("010-1234-5678")
        page.until("article.assistant .facts", "이 기계, small, 정책이 밖으로 내보내지 않는 개인정보가 들어 있음")
    finally:
        page.browser.quit()


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


def test_errors_are_said_in_korean_with_the_servers_own_words_behind(start: Start) -> None:
    def breaks_off() -> Iterator[Chunk]:
        yield Chunk(text="half ")
        raise RemoteError("the cable was cut")

    page = Page("ko-KR")
    try:
        page.open(
            start({"short": Responder("short", FakeEngine(context_tokens=2)), "far": Responder("far", ScriptedEngine(breaks_off))})
        )
        page.until("#model", "short")
        page.ask("a b c d")
        page.until(
            "article.assistant .wrong", "모델이 한 번에 읽을 수 있는 길이를 넘었습니다. 새 대화를 시작하거나 내용을 줄이세요. (the "
        )
        Select(page.find("#model")).select_by_value("far")
        page.ask("go")
        page.until("article.assistant .wrong", "모델이 실행되는 다른 서버에서 오류가 났습니다. (the cable was cut)")
    finally:
        page.browser.quit()


def test_a_server_with_a_key_is_asked_with_the_one_that_is_typed(page: Page, start: Start) -> None:
    page.open(start(Responder("fake", FakeEngine()), api_key="k3y"))
    page.until("#about", "asks for its API key")
    page.find("#key").send_keys("k3y", Keys.TAB)
    page.until("#about", "Nothing is sent anywhere else")


def test_that_a_model_is_on_another_server_is_said_before_anything_is_sent(page: Page, start: Start) -> None:
    page.open(start(from_references(["https://llm.example/v1#m", "fake:"])))
    page.until("#about", "https://llm.example/v1#m runs on another server: what you write is sent there.")
    Select(page.find("#model")).select_by_value("fake:")
    page.until("#about", "Nothing is sent anywhere else")
    page.ask("one two")
    page.until("article.assistant .text", "two one")
