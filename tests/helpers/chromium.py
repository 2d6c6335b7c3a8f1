"""A real browser, without a window, for the pages that people open."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))),
    None,
)


@contextmanager
def browser():
    """Chromium by playwright; the test is skipped where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def listened(page, kinds=("error", "warning")):
    """What a page complains about, and what it asks for, as two lists that fill."""
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text) if message.type in kinds else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    return complaints, asked
