"""Measures reports in a headless Chromium: how long until the grid, the first cell with its log, and the end of a search in all logs."""

import os
import pathlib
import statistics

from harness import PATIENCE_MS, chromium
from playwright.sync_api import sync_playwright

ROUNDS = 3
UNTIL = """(done) => new Promise((resolve) => {
  const began = performance.now();
  const look = () => done() ? resolve(performance.now() - began) : requestAnimationFrame(look);
  look();
})"""


def once(browser, file):
    page = browser.new_page(viewport={"width": 1360, "height": 860})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(file.resolve().as_uri() + "#/")
    until = f"const until = {UNTIL};"
    # From the start of the navigation to the frame after the grid answers.
    grid = page.evaluate("new Promise((resolve) => requestAnimationFrame(() => resolve(performance.getEntriesByName('ready')[0].startTime)))")
    cell = page.evaluate(f"""() => {{ {until}
      document.querySelector(".pivot .c[data-o=failed]").click();
      return until(() => document.querySelector("article.cell .step") && document.querySelector(".row b"));
    }}""")
    page.keyboard.press("Escape")
    page.locator("#overview").wait_for()
    search = page.evaluate(f"""() => {{ {until}
      document.getElementById("all-logs").value = "empty body";
      document.querySelector("#search button").click();
      return until(() => /lines in/.test(document.getElementById("found").textContent));
    }}""")
    found = page.locator("#found").inner_text()
    page.close()
    return grid, cell, search, found


def run(files):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for file in map(pathlib.Path, files):
            rounds = [once(browser, file) for _ in range(ROUNDS)]
            grid, cell, search = (statistics.median(figures) for figures in list(zip(*rounds))[:3])
            print(f"{file.name}: {file.stat().st_size:,} bytes; medians of {ROUNDS}: grid {grid:.0f} ms, first cell with log {cell:.0f} ms, "
                  f"search {search:.0f} ms ({rounds[0][3]})")
        browser.close()
