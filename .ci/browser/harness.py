"""What all browser tests share: a headless Chromium without network, tests as functions, pictures, and the check for accessibility.

A test is a function with one parameter, a `Stage`, and a docstring that says what holds. `@test` registers it.
"""

import contextlib
import os
import pathlib
import shutil
import sys
import time
import traceback

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

# How long to wait for what must happen; a bound against hanging, nothing is measured with it.
PATIENCE_MS = 30_000
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def chromium():
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or sys.exit("there is no Chromium: apt-get install chromium, or set CHROMIUM")


class Stage:
    """A browser, the folder for pictures, and what the tests run against."""

    def __init__(self, browser, pictures, phalanx, folder):
        self.browser = browser
        self.pictures = pathlib.Path(pictures)
        self.phalanx = phalanx
        self.folder = pathlib.Path(folder)
        self.made = {}

    def once(self, name, make):
        """Makes something that several tests use, when the first of them needs it."""
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @contextlib.contextmanager
    def page(self, address, offline=True, expected=None, **options):
        """A page in a fresh profile. It fails the test if the page reports an error, breaks its policy, or requests another address.
        Errors that contain `expected` are part of the test."""
        options = {"viewport": {"width": 1360, "height": 860}, **options}
        context = self.browser.new_context(offline=offline, **options)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        wrong = []
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("console", lambda message: wrong.append(f"console: {message.text}")
                if message.type == "error" and not (expected and expected in message.text) else None)
        if offline:
            page.on("request", lambda request: None if request.url.split("#")[0] == address.split("#")[0] or request.url.startswith(("blob:", "data:"))
                    else wrong.append(f"request: {request.url}"))
        page.goto(address)
        try:
            yield page
            assert not wrong, wrong
        except BaseException:
            self.picture(page, f"failed-{int(time.time() * 1000)}")
            raise
        finally:
            context.close()

    def picture(self, page, name, **options):
        page.screenshot(path=self.pictures / f"{name}.png", **options)


def violations(page):
    """The serious and critical violations that axe finds, in a line each."""
    found = Axe().run(page).response["violations"]
    serious = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}" for rule in serious for node in rule["nodes"][:5]]


def run(only, pictures, phalanx, folder):
    """Runs the tests whose name or module contains `only`; returns the number of failures."""
    pathlib.Path(pictures).mkdir(parents=True, exist_ok=True)
    failed = 0
    with sync_playwright() as playwright:
        # In a container Chromium's own sandbox can't start; the pages are ours.
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else [])
        stage = Stage(browser, pictures, phalanx, folder)
        for function in TESTS:
            name = f"{function.__module__}.{function.__name__}"
            if only not in name:
                continue
            began = time.monotonic()
            try:
                function(stage)
                print(f"ok      {name} ({time.monotonic() - began:.1f} s): {function.__doc__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}: {function.__doc__}\n{traceback.format_exc()}", flush=True)
        browser.close()
        for made in stage.made.values():
            getattr(made, "end", lambda: None)()
    return failed
