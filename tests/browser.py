"""Debian's chromium, driven by selenium: without a window, on this machine alone, and for a bounded time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60
"""Of whatever a test waits for."""
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None or find_spec("selenium") is None,
    reason="chromium, chromium-driver or selenium is not installed",
)


class Browser:
    """One window, and what a reader does in it."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def by(self, element_id: str) -> Any:
        return self.driver.find_element("id", element_id)

    def text(self, element_id: str) -> str:
        """Of an element, seen or not."""
        return str(self.by(element_id).get_property("textContent")).strip()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is so, and return it."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, TIMEOUT_S, 0.05).until(lambda _: condition())

    def drawn(self) -> None:
        """Wait until what was done is drawn: the page draws, and says what it has drawn, once a frame."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def drop(self, *paths: Path, on: str = "screen") -> None:
        """Drop files and folders on an element, as from a file manager."""
        box = self.by(on).rect
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **where, "data": data})

    def saved(self, press: Callable[[], object]) -> Path:
        """The file that is saved when something is pressed."""
        before = set(self.downloads.iterdir())
        press()

        def whole() -> Path | None:
            new = set(self.downloads.iterdir()) - before
            # Until it is whole it has another name.
            named = (path for path in new if path.suffix != ".crdownload" and not path.name.startswith("."))
            return next(named, None)

        return Path(self.wait(whole))

    def console(self) -> list[str]:
        """What the page complained of."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The method and the address of each request since the last call."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                found.append(f"{request['method']} {request['url']}")
        return found


@contextmanager
def browsing(folder: Path, width: int = 1280, height: int = 800, is_phone: bool = False) -> Iterator[Browser]:
    """A browser without a past. folder: an empty one, for its profile and what is saved."""
    from selenium import webdriver

    options, downloads = webdriver.ChromeOptions(), folder / "saved"
    downloads.mkdir()
    options.binary_location = str(CHROMIUM)
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--force-device-scale-factor=1"),
        *(f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}", "--no-proxy-server"),
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    if is_phone:
        metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": True}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        driver.set_page_load_timeout(TIMEOUT_S)
        driver.set_script_timeout(TIMEOUT_S)
        yield Browser(driver, downloads)
    finally:
        driver.quit()
