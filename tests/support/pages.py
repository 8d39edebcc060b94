"""Pages served by a process, and who visits them with a headless browser."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS, ANSWER_SECONDS = 150, 40


def missing() -> str:
    """Returns what the browser tests lack, if anything."""
    lacking = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
    lacking += [] if BROWSER else ["chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"The page is tested with {', '.join(lacking)}, not installed here." if lacking else ""


def in_a_browser(test):
    return pytest.mark.slow(pytest.mark.skipif(bool(missing()), reason=missing())(test))


def serve(words, variables, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MBT_CLASSIFIER")}
    environment = {**kept, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"), **variables}
    log = folder / "log.txt"
    with log.open("w") as file:
        app = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=folder, env=environment, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while "Running on local URL" not in log.read_text():
            assert app.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}", log
    finally:
        app.terminate()
        app.wait(30)


class Visitor:
    """What somebody does on the page."""

    def __init__(self, driver, address: str):
        self.driver = driver
        driver.get(address)
        self.reads("learned from unlabeled recordings")

    def shown(self, selector: str) -> list:
        return [element for element in self.driver.find_elements("css selector", selector) if element.is_displayed()]

    def wait(self, condition):
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, ANSWER_SECONDS, ignored_exceptions=[StaleElementReferenceException])
        try:
            return waiting.until(condition)
        except TimeoutException:
            raise AssertionError(f"The page reads: {self.text()}") from None

    def text(self) -> str:
        return self.driver.find_element("tag name", "body").text

    def reads(self, pattern: str) -> re.Match:
        return self.wait(lambda _: re.search(pattern, self.text()))

    def tabs(self) -> list[str]:
        return [tab.text for tab in self.shown("button[role=tab]")]

    def clicks(self, selector: str, text: str = "") -> None:
        self.wait(lambda _: [one for one in self.shown(selector) if one.text.strip() == text])[0].click()

    def opens(self, tab: str) -> None:
        self.clicks("button[role=tab]", tab)

    def panel(self):
        return self.wait(lambda _: self.shown("[role=tabpanel]"))[0]

    def uploads(self, *files) -> None:
        """Puts these files into the first empty place of the open tab; waits until the page shows them."""
        panel = self.panel()
        places = self.inputs(panel)
        is_list = places[0].get_attribute("multiple")
        places[0].send_keys("\n".join(map(str, files)))

        def has_them(_) -> bool:
            words = "".join(panel.text.split())  # The page writes a name and its ending apart.
            listed = all(file.name in words for file in files)
            return "Uploading" not in words and (listed if is_list else len(self.inputs(panel)) < len(places))

        self.wait(has_them)

    def inputs(self, panel) -> list:
        return panel.find_elements("css selector", "input[type=file]")
