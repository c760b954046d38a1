"""The browser of tests that look at pages."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)"
)


def chrome(language: str) -> Chrome:
    """Without a window, in a language such as `ko-KR`; it keeps what its console says."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--lang={language}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))


def set_viewport(browser: Chrome, width: int, height: int, *, is_mobile: bool = False) -> None:
    """As large as that in pixels of CSS, also where no window may be so small."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
