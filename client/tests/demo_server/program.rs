//! The demo server as the quickstart sees it: started as a program, asked over HTTP, ended by SIGTERM.

use phalanx_client::demo::{PASSWORD, USER};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

struct Shop {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    base: String,
    client: Client,
}

impl Shop {
    fn start(arguments: &[&str]) -> Shop {
        let mut child = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .arg("demo-server")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let (_, base) = first.split_once("listening on ").unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .cookie_store(true)
            .redirect(redirect::Policy::none())
            .build()
            .unwrap();
        Shop {
            child,
            lines,
            base: base.to_owned(),
            client,
        }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}{path}", self.base)).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_order_is_placed_and_billed_and_wrong_ones_are_refused() {
    let shop = Shop::start(&["--billing-delay", "100"]);
    let (status, order) = shop.post("/orders", json!({ "sku": "book" })).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        order,
        json!({ "id": 1, "sku": "book", "quantity": 1, "state": "received" })
    );
    while shop.json("/orders/1").await["state"] != "billed" {}
    assert_eq!(shop.json("/orders?state=received").await, json!([]));
    assert_eq!(shop.post("/orders", json!({ "sku": "boat" })).await.0, 422);
    assert_eq!(shop.post("/orders", json!([])).await.0, 400);
    assert_eq!(shop.get("/orders/7").await.0, 404);
}

#[tokio::test]
async fn a_form_needs_its_csrf_token_and_gives_a_session() {
    let shop = Shop::start(&[]);
    assert_eq!(shop.get("/account").await.0, 302);
    let (_, page) = shop.get("/login").await;
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap();
    let (csrf, _) = rest.split_once('"').unwrap();
    let login = |csrf: &str, password: &str| {
        let form = [("csrf", csrf), ("user", USER), ("password", password)];
        shop.client
            .post(format!("{}/login", shop.base))
            .form(&form)
            .send()
    };
    assert_eq!(login("wrong", PASSWORD).await.unwrap().status(), 403);
    assert_eq!(login(csrf, "wrong").await.unwrap().status(), 401);
    let answer = login(csrf, PASSWORD).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (302, &"/account".parse().unwrap())
    );
    assert!(shop.get("/account").await.1.contains(USER));
}

#[tokio::test]
async fn a_bearer_token_opens_the_report() {
    let shop = Shop::start(&[]);
    assert_eq!(shop.get("/report").await.0, 401);
    assert_eq!(
        shop.post("/tokens", json!({ "user": USER, "password": "" }))
            .await
            .0,
        401
    );
    let (status, made) = shop
        .post("/tokens", json!({ "user": USER, "password": PASSWORD }))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let report = shop
        .client
        .get(format!("{}/report", shop.base))
        .bearer_auth(made["token"].as_str().unwrap());
    assert_eq!(
        report.send().await.unwrap().json::<Value>().await.unwrap(),
        json!({ "orders": 0, "billed": 0 })
    );
}

#[tokio::test]
async fn the_stream_ends_with_a_summary_and_old_releases_have_none() {
    let shop = Shop::start(&[]);
    let (_, text) = shop.get("/events?count=2").await;
    let events: Vec<&str> = text.trim().split("\n\n").collect();
    assert_eq!(events.len(), 3, "{text}");
    assert!(events[2].contains("event: summary") && events[2].contains(r#""count":2"#));
    let old = Shop::start(&["--version", "v1.8"]);
    assert_eq!(old.get("/events").await.0, 404);
    assert_eq!(old.json("/").await["version"], "v1.8");
}

#[tokio::test]
async fn the_odd_routes_answer_as_asked() {
    let starting = Shop::start(&["--startup-delay", "3600000"]);
    assert_eq!(starting.get("/health").await.0, 503);
    let shop = Shop::start(&["--startup-delay", "50"]);
    while shop.get("/health").await.0 != 200 {}
    for code in [204, 404, 500] {
        assert_eq!(shop.get(&format!("/status/{code}")).await.0, code);
    }
    assert_eq!(shop.get("/status/7").await.0, 400);
    assert_eq!(shop.json("/slow?ms=20").await["waited_ms"], 20);
    assert_eq!(shop.get("/flaky/a?fails=1").await.0, 503);
    assert_eq!(shop.get("/flaky/a?fails=1").await.0, 200);
    assert_eq!(shop.json("/echo?q=1").await["query"], "q=1");
    assert_eq!(shop.get("/nowhere").await.0, 404);
}

#[tokio::test]
async fn requests_are_logged_and_sigterm_ends_it_well() {
    let mut shop = Shop::start(&[]);
    shop.get("/health").await;
    let line = shop.lines.next().unwrap().unwrap();
    assert!(line.starts_with("GET /health 200 "), "{line}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(shop.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(shop.child.wait().unwrap().success());
    assert_eq!(shop.lines.next().unwrap().unwrap(), "shop closed");
}

#[test]
fn wrong_arguments_and_a_taken_port_are_told() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_phalanx"))
            .arg("demo-server")
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, message) = run(&["--version", "two"]);
    assert!(code == Some(2) && message.contains("v1.8"), "{message}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, message) = run(&["--port", &port]);
    assert!(code == Some(1) && message.contains(&port), "{message}");
}
