"""Tests of the HTML report: one file, opened from disk with the network off."""

import pathlib
import subprocess

from harness import test, violations

HERE = pathlib.Path(__file__).parent
CAUSES = {
    "source=git with image ≥ v4.5": "migrate > the schema is that of the release",
    "stack=ipv6 with database=mysql": "setup > the database accepts connections",
    "image=v4.2": "sync > a background job runs to its end",
}


def report(stage):
    """The report of the run with the planted causes."""

    def make():
        file = stage.folder / "report.html"
        command = [stage.phalanx, "run", HERE / "matrix.yaml", "--quiet", "--report", f"html={file}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1, f"exit code {done.returncode}: {done.stderr}"
        return file.as_uri()

    return stage.once("report", make)


def open_cell(page):
    """Opens the first failing cell by keyboard."""
    page.locator(".pivot .c").first.wait_for()
    page.keyboard.press("n")
    page.keyboard.press("Enter")
    page.locator("article.cell").wait_for()


@test
def first_screen(stage):
    """the first screen has the verdict, a mark per cell, the three planted causes with their rules, and the wall time"""
    with stage.page(report(stage) + "#/") as page:
        assert "of 60 cells failed" in page.locator("h1.verdict").inner_text()
        assert page.locator(".pivot .c").count() == 60
        findings = page.locator("#findings > ol > li")
        texts = findings.all_inner_texts()
        assert len(texts) == 3, texts
        for title in CAUSES.values():
            assert any(title in text for text in texts), (title, texts)
        height = page.viewport_size["height"]
        for item in findings.all():
            box = item.locator("h3").bounding_box()
            assert box["y"] + box["height"] <= height, f"below the first screen: {item.inner_text()}"
        assert page.locator("#times").inner_text().lower().count("slowest cell")
        stage.picture(page, "first-screen")


@test
def every_cause_has_its_rule(stage):
    """each planted cause is told with its rule, and a green cell beside it"""
    with stage.page(report(stage) + "#/") as page:
        for item in page.locator("#findings > ol > li").all():
            text = item.inner_text()
            rule = next(rule for rule, title in CAUSES.items() if title in text)
            words = set(rule.replace("with", "").split())
            assert words <= set(text.replace(",", " ").replace(":", " ").split()), (rule, text)
            assert "nearest green" in text, text


@test
def pivot(stage):
    """the same marks are arranged along other axes, and the address says so"""
    with stage.page(report(stage) + "#/") as page:
        page.select_option("#rows", label="source")
        page.select_option("#columns", label="stack")
        assert page.locator(".pivot tbody tr").count() == 3
        assert page.locator(".pivot .c").count() == 60
        heads = page.locator(".pivot thead th").all_inner_texts()
        assert heads[1:] == ["ipv4", "ipv6"], heads
        page.wait_for_function("location.hash.includes('rows=source') && location.hash.includes('columns=stack')")
        page.reload()
        assert page.locator(".pivot tbody tr").count() == 3
        page.click("#swap")
        assert page.locator(".pivot tbody tr").count() == 2


@test
def filters(stage):
    """filters by outcome and by name dim the other marks and stay in the address"""
    with stage.page(report(stage) + "#/") as page:
        page.click("button[data-show=failed]")
        assert page.locator(".pivot .c.off").count() == page.locator(".pivot .c[data-o=passed]").count()
        page.fill("#filter", "wheel")
        page.wait_for_function("location.hash.includes('show=failed') && location.hash.includes('filter=wheel')")
        page.reload()
        page.locator(".pivot .c.off").first.wait_for()
        bright = page.locator(".pivot .c:not(.off)")
        assert all("wheel" in title and "failed" in title for title in bright.evaluate_all("all => all.map((mark) => mark.title)"))


@test
def keyboard(stage):
    """a failing cell is found and opened by keyboard, its failed step is open, and Escape leads back to the same mark"""
    with stage.page(report(stage) + "#/") as page:
        open_cell(page)
        assert page.locator("article.cell h1").evaluate("(title) => title === document.activeElement")
        assert page.locator(".step.leaf[open][data-o=failed] .body").count() == 1
        opened = page.url.split("/cells/")[1].split("/")[0]
        stage.picture(page, "cell", full_page=True)
        page.keyboard.press("n")
        page.wait_for_function("(opened) => !location.hash.includes(opened)", arg=opened)
        page.locator("article.cell").wait_for()
        last = page.url.split("/cells/")[1].split("/")[0]
        page.keyboard.press("Escape")
        page.locator("#overview").wait_for()
        assert page.evaluate("document.activeElement.hash").endswith(last)
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.matches('.c')")


@test
def deep_link(stage):
    """a link to a step opens its cell, the step, and the lines of its time"""
    with stage.page(report(stage) + "#/") as page:
        link = page.locator("#findings h3 a").first.get_attribute("href")
    assert "/steps/" in link, link
    with stage.page(report(stage) + link) as page:
        picked = page.locator(".step.picked")
        picked.wait_for()
        assert link.endswith(picked.get_attribute("data-path")), link
        assert picked.locator("summary").evaluate("(summary) => summary === document.activeElement")
        page.locator(".row").first.wait_for()
        assert violations(page) == []


@test
def search_in_a_log(stage):
    """a cell's log is searched, matches are counted and stepped through, only rows on the screen are in the page"""
    with stage.page(report(stage) + "#/") as page:
        open_cell(page)
        page.locator(".row").first.wait_for()
        assert page.locator(".row").count() < 100
        page.keyboard.press("/")
        page.keyboard.type("was retried")
        page.get_by_text("1 of 3", exact=True).wait_for()
        page.keyboard.press("Enter")
        page.get_by_text("2 of 3", exact=True).wait_for()
        page.locator(".row.now mark").wait_for()
        page.wait_for_function("location.hash.includes('q=was')")


@test
def search_in_all_logs(stage):
    """the logs of all cells are searched at once, and a hit leads to its lines"""
    with stage.page(report(stage) + "#/") as page:
        page.fill("#all-logs", "was retried")
        page.keyboard.press("Enter")
        page.get_by_text("180 lines in 60 logs").wait_for()
        page.locator("#hits a").first.click()
        page.locator(".row.now mark").wait_for()
        page.get_by_text("1 of 3", exact=True).wait_for()


@test
def without_javascript(stage):
    """without JavaScript everything but single steps and logs is there to read"""
    with stage.page(report(stage), java_script_enabled=False) as page:
        assert "of 60 cells failed" in page.locator("h1.verdict").inner_text()
        assert page.locator(".pivot .c").count() == 60
        assert page.locator("#findings > ol > li").count() == 3
        page.locator("#findings details.cells summary").first.click()
        assert page.locator("#findings .check").first.is_visible()
        assert page.locator("#coverage tbody tr").count() == 5
        assert page.locator("noscript .note").is_visible()
        assert not page.locator("#search").is_visible()


@test
def accessible_in_light_and_dark(stage):
    """axe finds no serious violation on the overview and in a cell, in light and dark"""
    for scheme in ("light", "dark"):
        with stage.page(report(stage) + "#/", color_scheme=scheme) as page:
            page.locator(".pivot .c").first.wait_for()
            assert violations(page) == []
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(14, 16, 20)") == (scheme == "dark"), background
            stage.picture(page, f"overview-{scheme}")
            open_cell(page)
            page.locator(".row").first.wait_for()
            assert violations(page) == []
            stage.picture(page, f"cell-{scheme}")


@test
def print_it(stage):
    """printed, the page is light and holds no control"""
    with stage.page(report(stage) + "#/", color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for gone in ("#filter", ".axes", "#search"):
            assert not page.locator(gone).is_visible(), gone
        page.pdf(path=stage.folder / "report.pdf")
        assert (stage.folder / "report.pdf").stat().st_size > 10_000


@test
def narrow(stage):
    """on a narrow screen nothing is wider than the screen"""
    with stage.page(report(stage) + "#/", viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        open_cell(page)
        page.locator(".row").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@test
def pictures(stage):
    """the pictures of the docs: .ci/pages --only pictures --pictures docs/pictures"""
    with stage.page(report(stage) + "#/", viewport={"width": 1200, "height": 760}) as page:
        page.locator(".pivot .c").first.wait_for()
        stage.picture(page, "report")
        open_cell(page)
        page.locator(".row").first.wait_for()
        stage.picture(page, "report-cell")
