"""Tests of the live pages: a coordinator and an agent of their own, and runs that go on when a test says so."""

import contextlib
import json
import pathlib
import re
import socket
import subprocess
import threading

from harness import PATIENCE_MS, test, violations

HERE = pathlib.Path(__file__).parent


class Fleet:
    """A coordinator with pages and one agent, as processes that end with the tests."""

    def __init__(self, stage):
        self.phalanx = stage.phalanx
        self.folder = stage.folder / "fleet"
        self.folder.mkdir()
        self.processes = []
        command = ["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        said = self.start("serve", command, r"pages at (http://\S+)/\n")
        self.pages = said.group(1)
        log = (self.folder / "serve.log").read_text()
        self.coordinator = re.search(r"coordinator at (http://\S+):", log).group(1)
        self.start("agent", ["agent", "--coordinator", self.coordinator, "--slots", "64", "--allow", "run"], None)

    def start(self, name, arguments, until):
        log = self.folder / f"{name}.log"
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.folder), "PHALANX_STATE_DIR": str(self.folder / name),
                       "PHALANX_CPU_OVERCOMMIT": "64", "PHALANX_MEMORY_OVERCOMMIT": "64"}
        with log.open("w") as out:
            self.processes.append(subprocess.Popen([self.phalanx, *arguments], stdout=out, stderr=out, env=environment, cwd=self.folder))
        waiting = threading.Event()
        for _ in range(PATIENCE_MS // 50):
            found = until and re.search(until, log.read_text())
            if found or not until:
                return found
            waiting.wait(0.05)
        raise AssertionError(f"{name}: {log.read_text()}")

    def submit(self, spec, **inputs):
        given = [word for key, value in inputs.items() for word in ("--input", f"{key}={value}")]
        command = [self.phalanx, "--coordinator", self.coordinator, "submit", str(HERE / spec), *given]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def end(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()


class Gated:
    """A run of gated.yaml, with the files that let it go on."""

    def __init__(self, stage):
        self.fleet = stage.once("fleet", lambda: Fleet(stage))
        self.place = stage.folder / f"gates-{len(list(stage.folder.glob('gates-*')))}"
        self.place.mkdir()
        self.id = self.fleet.submit("gated.yaml", place=self.place)
        self.address = f"{self.fleet.pages}/runs/{self.id}"

    def let(self, *names):
        for name in names:
            (self.place / name).touch()

    def finish(self, page):
        self.let("go", "refund", "more")
        complete(page)


def complete(page):
    page.locator("#connection[data-state=over]").wait_for()


def live(page):
    page.locator("#connection[data-state=live]").wait_for()


def until(page, condition):
    """Waits for an expression to hold. The pages' policy forbids playwright's own way, which evaluates a text inside of the page."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {PATIENCE_MS} ms: {condition}")


CONTENT = "document.querySelector('#page').innerText.replace(/Event \\d+/, '')"
LINES = "Number(document.querySelector('#log').dataset.lines ?? 0)"


class Proxy:
    """Forwards connections to a server, and cuts all of them when told to."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open, self.refuses = [], False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            if self.refuses:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.forward, args=(one, other), daemon=True).start()

    @staticmethod
    def forward(one, other):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        self.refuses = True
        for end in self.open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.open = []

    def mend(self):
        self.refuses = False


@test
def watched_from_start_to_end(stage):
    """a run is watched from start to end: the grid fills, the finding appears, and the page is that of a fresh load"""
    run = Gated(stage)
    with stage.page(run.address, offline=False) as page:
        live(page)
        page.locator(".pivot .c[data-o=running]").first.wait_for()
        assert page.locator(".pivot .c").count() == 6
        stage.picture(page, "live-running")
        run.let("go", "refund", "more")
        page.locator(".pivot .c[data-o=failed]").wait_for()
        complete(page)
        assert page.locator(".pivot .c[data-o=passed]").count() == 5
        assert "a refund is paid" in page.locator("#findings").inner_text()
        before = page.evaluate(CONTENT)
        stage.picture(page, "live-over")
        page.reload()
        complete(page)
        assert page.evaluate(CONTENT) == before
        assert not violations(page), violations(page)


@test
def keyboard_to_the_cause(stage):
    """a failing cell is opened by keyboard, and its log is searched"""
    run = Gated(stage)
    with stage.page(run.address, offline=False) as page:
        run.finish(page)
        page.keyboard.press("n")
        page.keyboard.press("Enter")
        page.locator("#cell-top h1").get_by_text("mysql v2").wait_for()
        complete(page)
        assert "deadlock found" in page.locator("#cell-top").inner_text()
        page.keyboard.press("/")
        page.keyboard.type("slow query in request 250")
        page.locator("#log-lines .row.now").get_by_text("slow query in request 250").wait_for()
        assert "1 of 1" in page.locator("#log-hits").inner_text()
        stage.picture(page, "live-cell")
        assert not violations(page), violations(page)


@test
def cancel_pressed(stage):
    """the cancel button cancels the run, and the page says so"""
    run = Gated(stage)
    with stage.page(run.address, offline=False) as page:
        page.locator(".pivot .c[data-o=running]").first.wait_for()
        page.keyboard.press("c")
        page.keyboard.press("Enter")
        page.locator(".verdict", has_text="Cancelled").wait_for()
        complete(page)
        assert page.locator("#cancel").count() == 0


@test
def cut_and_resumed(stage):
    """a cut connection is resumed without a lost or doubled row, of the grid and of a log"""
    run = Gated(stage)
    host, port = run.fleet.pages.removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)))
    listing = json.loads(subprocess.run([run.fleet.phalanx, "--coordinator", run.fleet.coordinator, "show", run.id, "--format", "json"],
                                        capture_output=True, text=True).stdout)
    cell = next(cell for cell in listing["cells"] if cell["name"] == "sqlite v1")
    address = f"{proxy.address}/runs/{run.id}/cells/{cell['id']}"
    # A refused connection is an error in the browser's console.
    with stage.page(address, offline=False, expected="net::ERR_") as page:
        live(page)
        run.let("go")
        page.locator("#attempts", has_text="a refund is paid").wait_for()
        until(page, f"{LINES} >= 300")
        proxy.cut()
        page.locator("#connection[data-state=lost]").wait_for()
        run.let("more")
        stage.picture(page, "live-lost")
        proxy.mend()
        live(page)
        run.let("refund")
        complete(page)
        paths = "rows => rows.map((row) => row.dataset.path)"
        steps = page.locator("#attempts .step").evaluate_all(paths)
        assert len(steps) == len(set(steps)), steps
        # 2,000 requests, a slow query in each fiftieth, and the end.
        until(page, f"{LINES} === 2000 + 40 + 1")
        page.reload()
        complete(page)
        assert page.locator("#attempts .step").evaluate_all(paths) == steps


@test
def hidden_and_shown(stage):
    """a tab that is hidden has no connection, and once it is shown it has everything that happened"""
    run = Gated(stage)
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with stage.page(run.address, offline=False) as page:
        live(page)
        page.locator(".pivot .c[data-o=running]").first.wait_for()
        page.evaluate(hide, True)
        with stage.page(run.address, offline=False) as other:
            run.finish(other)
            shown = other.evaluate(CONTENT)
        assert page.locator(".pivot .c[data-o=failed]").count() == 0
        page.evaluate(hide, False)
        complete(page)
        page.locator(".pivot .c[data-o=failed]").wait_for()
        assert page.evaluate(CONTENT) == shown


@test
def linked_step(stage):
    """the link of a finding opens the step on the cell's page"""
    run = Gated(stage)
    with stage.page(run.address, offline=False) as page:
        run.finish(page)
        link = page.locator("#page a[href*='#/steps/']").first
        path = link.get_attribute("href").split("#/steps/")[1]
        link.click()
        page.locator("details.step[open]").first.wait_for()
        opened = page.locator("details.step[open]").evaluate_all("steps => steps.map((step) => encodeURI(step.dataset.path))")
        assert path in opened, (path, opened)


@test
def a_thousand_cells(stage):
    """a thousand cells change, and the page shows each as it is at the end"""
    fleet = stage.once("fleet", lambda: Fleet(stage))
    run = fleet.submit("thousand.yaml")
    with stage.page(f"{fleet.pages}/runs/{run}", offline=False) as page:
        page.evaluate(FRAMES)
        busy = busiest(page, lambda: complete(page))
        longest = page.evaluate("window.longest")
        assert page.locator(".pivot .c").count() == 1000
        assert page.locator(".pivot .c[data-o=passed]").count() == 999
        assert page.locator(".pivot .c[data-o=failed]").count() == 1
        print(f"        a thousand cells: the longest task of the page computed for {busy:.0f} ms, the longest frame took {longest:.0f} ms")
        # A bound against a page that freezes, not a measurement: also a task's own time is longer on a busy machine.
        assert busy < 1000, busy
        stage.picture(page, "live-thousand")


def busiest(page, work):
    """Returns the processor time in ms of the page's longest task while `work` is done."""
    session, events, over = page.context.new_cdp_session(page), [], []
    session.on("Tracing.dataCollected", lambda part: events.extend(part["value"]))
    session.on("Tracing.tracingComplete", lambda _: over.append(True))
    session.send("Tracing.start", {"categories": "toplevel", "transferMode": "ReportEvents"})
    work()
    session.send("Tracing.end")
    while not over:
        page.wait_for_timeout(50)
    main = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"}
    tasks = [event.get("tdur", 0) for event in events if event["name"].endswith("RunTask") and (event["pid"], event["tid"]) in main]
    assert tasks, "the trace has no task of the page"
    return max(tasks) / 1000


FRAMES = """() => {
  window.longest = 0;
  let last = performance.now();
  const frame = (now) => { window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame((now) => { last = now; requestAnimationFrame(frame); });
}"""


@test
def time_travel(stage):
    """a page of the past shows the run as it was, and leads back to now"""
    run = Gated(stage)
    with stage.page(run.address, offline=False) as page:
        run.finish(page)
        page.goto(run.address + "?at=1")
        assert page.locator(".pivot .c[data-o=queued]").count() == 6
        page.get_by_text("As it was after event 1").wait_for()
        stage.picture(page, "live-past")
        page.get_by_text("Back to now").click()
        page.locator(".pivot .c[data-o=failed]").wait_for()


@test
def lists(stage):
    """the lists of runs and agents are there, in the dark too, and axe finds nothing serious"""
    fleet = stage.once("fleet", lambda: Fleet(stage))
    with stage.page(f"{fleet.pages}/", offline=False, color_scheme="dark") as page:
        page.get_by_role("heading", name="Runs").wait_for()
        live(page)
        stage.picture(page, "live-runs")
        assert not violations(page), violations(page)
        page.get_by_role("link", name="Agents").click()
        page.get_by_text("connected").wait_for()
        stage.picture(page, "live-agents")
        assert not violations(page), violations(page)
        page.get_by_role("link", name="Errors").click()
        page.get_by_role("link", name="PHX0001").click()
        page.locator(".explained h1").wait_for()


@test
def times_comparison_and_history(stage):
    """a run's times, its comparison with the run before, and the history of its spec are a click away"""
    first, run = Gated(stage), Gated(stage)
    with stage.page(first.address, offline=False) as page:
        first.finish(page)
    with stage.page(run.address, offline=False) as page:
        run.finish(page)
        page.get_by_role("link", name="Timing").click()
        page.get_by_role("heading", name="Critical path").wait_for()
        assert page.locator(".lane a").count() >= 6
        stage.picture(page, "live-timing")
        assert not violations(page), violations(page)
        page.go_back()
        page.get_by_role("link", name="Compare").last.click()
        page.get_by_role("heading", name="What changed").wait_for()
        stage.picture(page, "live-compare")
        assert not violations(page), violations(page)
        page.get_by_role("link", name="History").click()
        page.locator("#history", has_text="checkout").wait_for()
        stage.picture(page, "live-history")
        assert not violations(page), violations(page)
        # A cell's history, and from there a step's and the cell in a run.
        page.locator("#all-cells a").first.click()
        page.get_by_role("heading", name="Steps").wait_for()
        stage.picture(page, "live-history-cell")
        assert not violations(page), violations(page)
        page.locator("#steps a").first.click()
        page.locator("#step-cells").wait_for()
        assert not violations(page), violations(page)
        page.go_back()
        page.locator("#cell-runs tbody a").first.click()
        page.locator("#cell-top").wait_for()


def flood(stage, seconds):
    """Follows a log of 50,000 lines per second; returns lines per second in the page, the longest frame, and frames over 100 ms."""
    fleet = stage.once("fleet", lambda: Fleet(stage))
    place = stage.folder / "flood"
    place.mkdir(exist_ok=True)
    run = fleet.submit("flood.yaml", place=place)
    with stage.page(f"{fleet.pages}/runs/{run}/cells/flood", offline=False) as page:
        live(page)
        until(page, f"{LINES} > 100_000")
        figures = page.evaluate(f"""(seconds) => new Promise((resolve) => {{
          const lines = () => {LINES};
          const [began, first] = [performance.now(), lines()];
          let last = began, longest = 0, slow = 0;
          const frame = (now) => {{
            longest = Math.max(longest, now - last); slow += now - last > 100; last = now;
            if (now - began < seconds * 1000) requestAnimationFrame(frame);
            else resolve([(lines() - first) / ((now - began) / 1000), longest, slow, document.querySelectorAll("#log-lines li").length]);
          }};
          requestAnimationFrame(frame);
        }})""", seconds)
        stage.picture(page, "live-log")
        (place / "stop").touch()
        complete(page)
        written = int(page.locator("#log-lines .row", has_text="lines written:").inner_text().split()[-1])
        page.evaluate("document.querySelector('#log-follow').click(), document.querySelector('#log-view').scrollTop = 0")
        page.wait_for_timeout(200)
        # The page began in the middle of a line, if it began in the middle of the log.
        second = int(re.search(r"request (\d+)", page.locator("#log-lines .row").nth(1).inner_text()).group(1))
        lines = page.evaluate(LINES)
        assert lines == written + 1 - (second - 1), (written, second, lines)
    return figures


@test
def a_log_that_floods(stage):
    """a log of 50,000 lines per second is followed without a lost line, and only rows in sight are in the document"""
    rate, longest, slow, rows = flood(stage, 5)
    print(f"        a log: {rate:,.0f} lines per second, the longest frame took {longest:.0f} ms, {slow} over 100 ms, {rows} rows in the document")
    assert rows < 200, rows
