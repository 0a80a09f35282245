//! Live pages over real HTTP: a run of a local coordinator is watched through event streams as browsers open them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use libtest_mimic::{Arguments, Failed, Trial};
use phalanx_agent::runtime::docker::DockerSettings;
use phalanx_client::local::{LocalRun, Options};
use phalanx_coordinator::serve::web::{Actions, Options as Pages};
use phalanx_proto::v1;
use reqwest::header::{HOST, ORIGIN};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Guards against hanging.
const BOUND: Duration = Duration::from_secs(90);

/// Two cells; each prints lines, waits for its gate, and ends: the second one fails.
const GATED: &str = r#"
name: gated
inputs: { place: {} }
strategy: { matrix: { n: [1, 2] } }
cell: { name: "cell ${{ matrix.n }}" }
services:
  printer:
    process: [sh, -c, "echo first line; echo gräßlich; while [ ! -e ${{ inputs.place }}/gate-${{ matrix.n }} ]; do sleep 0.05; done; echo last line; touch ${{ inputs.place }}/printed-${{ matrix.n }}; sleep 60"]
phases:
  work:
    - name: waits for its gate
      run: while [ ! -e ${{ inputs.place }}/printed-${{ matrix.n }} ]; do sleep 0.05; done
    - name: is the first cell
      run: test ${{ matrix.n }} = 1
"#;

fn main() -> ExitCode {
    if let Some(code) = phalanx_client::entry::early_command() {
        return code;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut trials = Vec::new();
    let mut add = |name: &str, test: fn() -> Result<(), Failed>| {
        trials.push(Trial::test(name, test));
    };
    add(
        "a page that connects again gets exactly the patches that it misses",
        || block_on(resumed()),
    );
    add(
        "a page of the past shows the run as it was, and compares with it after a restart",
        || block_on(past()),
    );
    add(
        "logs follow, and a page that connects again gets no record twice and misses none",
        || block_on(logs()),
    );
    add(
        "requests of other sites are refused, and a button needs its page's token",
        || block_on(guarded()),
    );
    add("a button cancels the run", || block_on(cancelled()));
    add("an event stream that isn't read delays nothing", || {
        block_on(unread())
    });
    add("a page that isn't there says so", || block_on(missing()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn block_on(test: impl Future<Output = ()>) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(BOUND, test)
            .await
            .map_err(|_| Failed::from("it takes too long"))
    })
}

/// A run of [`GATED`] with its pages.
struct Rig {
    place: tempfile::TempDir,
    local: LocalRun,
    base: String,
    run: String,
    browser: Client,
}

impl Rig {
    async fn start() -> Rig {
        let place = tempfile::tempdir().unwrap();
        let options = Options {
            state_dir: place.path().join("state"),
            agents: 1,
            slots: 4,
            agents_as_processes: false,
            cpu_overcommit: 64.0,
            memory_overcommit: 64.0,
            snapshots_mib: 0,
            snapshots_days: 0,
            policy: phalanx_shared::policy::Rules::open(phalanx_shared::policy::rules::OPEN),
            labels: Vec::new(),
            docker: DockerSettings::default(),
            cancel_grace: Duration::from_secs(5),
            max_cells: None,
            tracer: None,
            program: None,
        };
        let local = LocalRun::start(&options).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let pages = Pages {
            actions: Actions::ALL,
            explained: &[("PHX0001", "# PHX0001: a title\n\nA text.\n")],
        };
        local.observe(listener, pages);
        let request = v1::SubmitRequest {
            files: vec![v1::SourceFile {
                name: "gated.yaml".to_owned(),
                text: GATED.to_owned(),
            }],
            inputs_json: serde_json::json!({ "place": place.path() })
                .to_string()
                .into_bytes(),
            ..v1::SubmitRequest::default()
        };
        let submitted = local.client().submit(request).await.unwrap().into_inner();
        assert!(submitted.refusal.is_none(), "{:?}", submitted.refusal);
        Rig {
            place,
            local,
            base,
            run: submitted.run_id,
            browser: Client::new(),
        }
    }

    /// Lets a cell go on.
    fn open_gate(&self, n: u32) {
        fs::write(self.place.path().join(format!("gate-{n}")), "").unwrap();
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.browser.get(format!("{}{path}", self.base));
        request.send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    async fn events(&self, path: &str, last: Option<&str>) -> Events {
        let mut request = self.browser.get(format!("{}{path}", self.base));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Events {
            response,
            text: String::new(),
        }
    }

    fn run_path(&self) -> String {
        format!("/runs/{}", self.run)
    }

    /// Returns the path of a cell's page, by the name of the cell.
    async fn cell_path(&self, n: u32) -> String {
        let path = format!("{}/cells/cell%20{n}", self.run_path());
        let page = self.page(&path).await;
        let events = attribute(&page, "data-events");
        events.split("/events").next().unwrap().to_owned()
    }

    async fn close(self) {
        for n in [1, 2] {
            self.open_gate(n);
        }
        self.local.close().await;
    }
}

/// Returns the value of an attribute that occurs once on a page.
fn attribute(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("{name}=\"")).unwrap();
    let value = rest.split('"').next().unwrap();
    value.replace("&amp;", "&")
}

/// An event stream that is being read.
struct Events {
    response: Response,
    text: String,
}

/// One event.
#[derive(Clone, Debug)]
struct Event {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Event {
    /// Returns the ids of a patch's regions.
    fn regions(&self) -> Vec<String> {
        let changes = self.data.as_array().unwrap();
        let id = |change: &Value| change[0].as_str().unwrap().to_owned();
        changes.iter().map(id).collect()
    }
}

impl Events {
    /// Returns the next event, or none at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let found = lines.find_map(|line| line.strip_prefix(name));
                    found.map(str::to_owned)
                };
                if let Some(kind) = field("event: ") {
                    let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                    let id = field("id: ");
                    return Some(Event { kind, id, data });
                }
                continue;
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// Returns all events up to the first one that is wanted.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
            if events.last().is_some_and(&wanted) {
                return events;
            }
        }
        panic!("the stream ended after {events:?}");
    }

    async fn read_all(&mut self) -> Vec<Event> {
        self.until(|event| event.kind == "end").await
    }
}

/// The page of a run, as a browser puts it together from patches.
#[derive(Debug, Default, PartialEq)]
struct Seen(BTreeMap<String, String>);

impl Seen {
    fn take(&mut self, events: &[Event]) {
        for event in events.iter().filter(|event| event.kind == "patch") {
            for change in event.data.as_array().unwrap() {
                let text = |at: usize| change[at].as_str().unwrap().to_owned();
                self.0.insert(text(0), text(2));
            }
        }
    }
}

async fn resumed() {
    let rig = Rig::start().await;
    let path = rig.run_path();
    let page = rig.page(&path).await;
    assert!(page.contains("Running: 0 of 2 cells finished."), "{page}");
    let events = attribute(&page, "data-events");
    let mut whole = rig.events(&events, None).await;
    let mut cut = rig.events(&events, None).await;
    rig.open_gate(1);
    let mark = |event: &Event| {
        event.kind == "patch" && event.data.to_string().contains("data-o=\\\"passed")
    };
    let before = cut.until(mark).await;
    let last = before.iter().rev().find_map(|event| event.id.clone());
    drop(cut);
    rig.open_gate(2);
    let all = whole.read_all().await;
    let mut again = rig.events(&events, last.as_deref()).await;
    let after = again.read_all().await;
    let (mut one, mut two) = (Seen::default(), Seen::default());
    one.take(&all);
    two.take(&before);
    two.take(&after);
    assert_eq!(one, two);
    // Nothing that it had comes again: the first cell's mark didn't change any more.
    let marks = |events: &[Event]| {
        let regions = events.iter().filter(|event| event.kind == "patch");
        let regions = regions.flat_map(Event::regions);
        regions
            .filter(|id| id.starts_with("c-"))
            .collect::<Vec<_>>()
    };
    assert_eq!(marks(&after).len(), 1, "{:?}", marks(&after));
    // A page that has seen the end gets no patch with a position.
    let end = after.last().unwrap().id.clone();
    let nothing = rig.events(&events, end.as_deref()).await.read_all().await;
    assert!(
        nothing
            .iter()
            .all(|event| event.kind == "end" || event.id.is_none()),
        "{nothing:?}"
    );
    // Patches are gathered: there are far fewer than events, and their ids never go back.
    let ids = all.iter().filter_map(|event| event.id.clone());
    let ids: Vec<u64> = ids.map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    rig.close().await;
}

async fn past() {
    let rig = Rig::start().await;
    let path = rig.run_path();
    let first = rig.page(&format!("{path}?at=1")).await;
    assert!(first.contains("As it was after event 1"), "{first}");
    assert!(!first.contains("data-events"), "the past doesn't go on");
    for n in [1, 2] {
        rig.open_gate(n);
    }
    let events = format!("{path}/events?after=1");
    rig.events(&events, None).await.read_all().await;
    assert_eq!(
        rig.page(&format!("{path}?at=1"))
            .await
            .matches("data-o=\"queued")
            .count(),
        4,
        "in the grid and in the list"
    );
    let over = rig.page(&path).await;
    assert!(over.contains("data-o=\"failed"), "{over}");
    // The board began after event 1, so what differs is found by comparing, and it leads to the same page.
    let mut seen = Seen::default();
    seen.take(&rig.events(&events, None).await.read_all().await);
    assert!(seen.0.values().any(|html| html.contains("data-o=\"failed")));
    rig.close().await;
}

async fn logs() {
    let rig = Rig::start().await;
    let cell = rig.cell_path(1).await;
    let events = format!("{cell}/events?after=0");
    let text = |event: &Event| {
        let records = event.data["records"].as_array().unwrap();
        let bytes = records
            .iter()
            .flat_map(|record| record[3].as_str().unwrap().chars());
        let bytes: Vec<u8> = bytes.map(|c| u8::try_from(c).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let has = |event: &Event, part: &str| event.kind == "log" && text(event).contains(part);
    let mut stream = rig.events(&events, None).await;
    let before = stream.until(|event| has(event, "gräßlich")).await;
    let last = before
        .iter()
        .rev()
        .find_map(|event| event.id.clone())
        .unwrap();
    assert_eq!(last.split('.').count(), 3, "{last}");
    drop(stream);
    rig.open_gate(1);
    let mut again = rig.events(&events, Some(&last)).await;
    let after = again.until(|event| has(event, "last line")).await;
    let all: String = before
        .iter()
        .chain(&after)
        .filter(|event| event.kind == "log")
        .map(text)
        .collect();
    assert_eq!(all, "first line\ngräßlich\nlast line\n");
    let earlier: Value = rig
        .get(&format!("{cell}/log?attempt=1&before=2"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(earlier["records"].as_array().unwrap().len(), 1);
    rig.close().await;
}

async fn guarded() {
    let rig = Rig::start().await;
    let path = rig.run_path();
    let address = rig.base.strip_prefix("http://").unwrap().to_owned();
    let ask = |host: &str, origin: Option<&str>, post: Option<&str>| {
        let url = format!("{}{path}{}", rig.base, post.map_or("", |_| "/cancel"));
        let mut request = match post {
            Some(token) => rig
                .browser
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!("token={token}")),
            None => rig.browser.get(url),
        };
        request = request.header(HOST, host);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        async move { request.send().await.unwrap().status() }
    };
    assert_eq!(ask(&address, None, None).await, StatusCode::OK);
    assert_eq!(ask("evil.example", None, None).await, StatusCode::FORBIDDEN);
    let evil = Some("http://evil.example");
    assert_eq!(ask(&address, evil, None).await, StatusCode::FORBIDDEN);
    let token = attribute(&rig.page(&path).await, "data-token");
    for (origin, token) in [
        (evil, token.as_str()),
        (Some(rig.base.as_str()), "guess"),
        (None, ""),
    ] {
        assert_eq!(
            ask(&address, origin, Some(token)).await,
            StatusCode::FORBIDDEN
        );
    }
    let page = rig.get(&path).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'"),
        "{policy}"
    );
    let body = page.text().await.unwrap();
    let forms = body.matches("<form class=\"action").count();
    let hidden = body.matches("<form class=\"action js\" hidden").count();
    assert!(forms > 0 && forms == hidden, "buttons need the script");
    for inline in [" style=", " onclick=", "<script>", "javascript:"] {
        assert!(!body.contains(inline), "{inline}");
    }
    rig.close().await;
}

async fn cancelled() {
    let rig = Rig::start().await;
    let path = rig.run_path();
    let page = rig.page(&path).await;
    let (events, token) = (
        attribute(&page, "data-events"),
        attribute(&page, "data-token"),
    );
    let pressed = rig
        .browser
        .post(format!("{}{path}/cancel", rig.base))
        .header(ORIGIN, &rig.base)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("token={token}"));
    assert_eq!(pressed.send().await.unwrap().status(), StatusCode::OK);
    let mut seen = Seen::default();
    seen.take(&rig.events(&events, None).await.read_all().await);
    assert!(
        seen.0["top"].contains("cancelled on the run's page")
            || seen.0["top"].contains("Cancelled"),
        "{}",
        seen.0["top"]
    );
    rig.close().await;
}

/// Reads the head of the answer and then nothing more, while others go on.
async fn unread() {
    let rig = Rig::start().await;
    let cell = rig.cell_path(1).await;
    let address = rig.base.strip_prefix("http://").unwrap();
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {cell}/events?after=0 HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        idle.push(stream);
    }
    for n in [1, 2] {
        rig.open_gate(n);
    }
    let events = format!("{}/events?after=0", rig.run_path());
    rig.events(&events, None).await.read_all().await;
    drop(idle);
    rig.close().await;
}

async fn missing() {
    let rig = Rig::start().await;
    for path in ["/runs/nothing", "/explain/PHX9999", "/nowhere"] {
        assert_eq!(
            rig.get(path).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let cell = format!("{}/cells/cell%203", rig.run_path());
    let response = rig.get(&cell).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let text = response.text().await.unwrap();
    assert!(text.contains("did you mean"), "{text}");
    assert!(rig.page("/explain/phx0001").await.contains("A text."));
    // Runs may be named by the beginning of their id; nothing finished before this one.
    let short = rig.run.get(..rig.run.len() - 1).unwrap();
    let compare = rig.page(&format!("/compare?before=&after={short}")).await;
    assert!(compare.contains("No run of the same spec"), "{compare}");
    assert!(rig.page("/agents").await.contains("Drain"));
    for path in [
        "/runs",
        "/agents",
        "/explain",
        "/static/live.js",
        "/healthz",
    ] {
        rig.page(path).await;
    }
    assert!(Path::new(rig.local.directory()).exists());
    rig.close().await;
}
