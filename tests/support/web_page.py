"""Airflow's web page in a headless Chromium, as a user works with it."""

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
# Raised while the page loads, as it renders its elements again and again.
TRANSIENT = (
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
    # With the path of the driver Selenium does not search for one on the internet.
    driver = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """A user's actions on the pages of one Airflow."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, path: str) -> None:
        self.driver.get(self.url + path)

    def log_in(self, user: str, password: str) -> None:
        self.find("[name=username]").send_keys(user)
        self.find("[name=password]").send_keys(password + Keys.ENTER)

    def find(self, selector: str, text: str = "") -> WebElement:
        """The first visible element of the CSS selector that contains the text; waits for it."""

        def look(driver: Any) -> WebElement | None:
            for element in driver.find_elements(By.CSS_SELECTOR, selector):
                if element.is_displayed() and text in element.text:
                    visible: WebElement = element
                    return visible
            return None

        return self.until(look, f"{selector} with {text!r}")

    def until(
        self, query: Callable[[Any], Any], name: str, seconds: float = SECONDS_TO_SHOW
    ) -> Any:
        """The value of `query(driver)` once it is true; TimeoutException after `seconds`.

        `name` is for the error.
        """
        wait = WebDriverWait(self.driver, seconds, 0.2, ignored_exceptions=TRANSIENT)
        return wait.until(query, f"{name} never showed on {self.driver.current_url}")

    def click(self, selector: str, text: str = "") -> None:
        def act(driver: Any) -> bool:
            self.find(selector, text).click()
            return True

        self.until(act, f"{selector} with {text!r} to click")

    def fill(self, name: str, value: object) -> None:
        """Replace the value of the form's field of that name."""
        field = self.find(f"[name=element_{name}]")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    @contextmanager
    def inside(self, frame: str) -> Iterator[None]:
        """Switch into a frame of the page while the block runs."""
        self.driver.switch_to.frame(self.find(frame))
        try:
            yield
        finally:
            self.driver.switch_to.default_content()

    def save_picture(self, name: str) -> None:
        """Save a picture of the page for the READMEs, under `make images` only."""
        if folder := os.environ.get("LUNG_IMAGES"):
            self.driver.save_screenshot(str(Path(folder, f"{name}.png")))
