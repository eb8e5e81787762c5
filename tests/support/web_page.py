"""Airflow's web page as a person uses it, in a real headless Chromium."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    NoSuchElementException,
    NoSuchFrameException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WINDOW = (1400, 1000)
SECONDS_TO_SHOW = 60
# The page draws its elements anew while it loads.
UNSETTLED = (
    NoSuchElementException,
    NoSuchFrameException,
    StaleElementReferenceException,
    ElementClickInterceptedException,
)


@contextmanager
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--force-color-profile=srgb",
        f"--window-size={WINDOW[0]},{WINDOW[1]}",
    ):
        options.add_argument(argument)
    # Named, so that nothing is looked for on the internet.
    driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """What a person does on the pages of one Airflow."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def log_in(self, user: str, password: str) -> None:
        self.find("[name=username]").send_keys(user)
        self.find("[name=password]").send_keys(password + Keys.ENTER)

    def find(self, selector: str, text: str = "") -> WebElement:
        """The first visible element of the CSS selector that holds the text, once it is there."""

        def look(driver: Any) -> WebElement | None:
            for element in driver.find_elements(By.CSS_SELECTOR, selector):
                if element.is_displayed() and text in element.text:
                    found: WebElement = element
                    return found
            return None

        return self.until(look, f"{selector} with {text!r}")

    def until(self, ask: Callable[[Any], Any], what: str, seconds: float = SECONDS_TO_SHOW) -> Any:
        """What `ask(driver)` returns once it is something; TimeoutException if it never is."""
        waiting = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=UNSETTLED)
        return waiting.until(ask, f"{what} never showed on {self.driver.current_url}")

    def click(self, selector: str, text: str = "") -> None:
        def act(driver: Any) -> bool:
            self.find(selector, text).click()
            return True

        self.until(act, f"{selector} with {text!r} to click")

    def fill(self, name: str, value: object) -> None:
        """Type a value into the form's field of that name, over what it holds."""
        field = self.find(f"[name=element_{name}]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    @contextmanager
    def inside(self, frame: str) -> Iterator[None]:
        """Look into a frame of the page while the block runs."""
        self.driver.switch_to.frame(self.find(frame))
        try:
            yield
        finally:
            self.driver.switch_to.default_content()

    def keep(self, name: str) -> None:
        """A picture of the page for the README, where `make images` asks for it."""
        if folder := os.environ.get("LUNG_IMAGES"):
            self.driver.save_screenshot(str(Path(folder, f"{name}.png")))
