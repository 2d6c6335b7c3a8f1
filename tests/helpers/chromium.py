"""Headless Chromium for tests of HTML pages."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))),
    None,
)


@contextmanager
def browser():
    """Start Chromium with playwright; skip the test if either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield chromium
        finally:
            chromium.close()


def listened(page, kinds=("error", "warning")):
    """Return two lists that collect the console messages and the requested URLs of a page."""
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text) if message.type in kinds else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    return messages, requests
