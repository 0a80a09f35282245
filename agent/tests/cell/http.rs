//! `http` steps.

use crate::rig::{spec, steps};
use crate::server;
use phalanx_shared::id::RunId;
use phalanx_shared::outcome::Outcome;
use phalanx_shared::trace::{AttemptTrace, TraceContext};

#[tokio::test]
async fn a_request_is_checked_and_captured_and_later_steps_read_it() {
    let url = server::start().await;
    let ended = steps(
        r#"
- id: first
  http: { get: "${{ inputs.url }}/count" }
  capture: { n: json.n }
  expect: [status == 200, n == 1, "headers['content-type'] == 'application/json'"]
- http: { get: "${{ inputs.url }}/echo?n=${{ steps.first.n }}" }
  expect: [json.uri == '/echo?n=1', steps.first.outcome == 'passed', elapsed < 30.0]
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.step("main/0").checks.len(), 3);
    assert_eq!(ended.step("main/0").name, format!("GET {url}/count"));
}

#[tokio::test]
async fn a_failed_check_shows_its_parts_the_request_and_the_answer() {
    let url = server::start().await;
    let ended = steps(
        r#"
- http: { post: "${{ inputs.url }}/echo", json: { a: 1 } }
  expect: [json.method == 'PUT', 1 + 1 == 2]
- http: { get: "${{ inputs.url }}/text" }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    let step = ended.step("main/0");
    // `status is 2xx` first, then both.
    assert_eq!(
        step.checks.iter().map(|c| c.passed).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(step.checks[1].parts[0].value, "\"POST\"");
    let failure = step.failure.clone().unwrap();
    assert!(failure.request.unwrap().contains("{\"a\":1}"));
    assert!(failure.response.unwrap().contains("200 OK"));
    assert_eq!(failure.place.unwrap(), "test.yaml:6:7");
    assert!(ended.reason("main/1").starts_with("after failed step POST"));
}

#[tokio::test]
async fn the_implied_check_comes_first_and_alone() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/status/404" }, expect: [json.nothing == 1], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/status/404" }, expect: ["status < 500"] }
"#,
    )
    .url(&url)
    .run()
    .await;
    let checks = &ended.step("main/0").checks;
    assert_eq!(checks.len(), 1, "{checks:#?}");
    assert_eq!(
        ended.reason("main/0"),
        "check failed: status is 2xx (status = 404): {\"code\":404}"
    );
    assert_eq!(ended.step("main/1").outcome, Outcome::Passed);
}

#[tokio::test]
async fn query_headers_and_each_kind_of_body_arrive_as_text() {
    let url = server::start().await;
    let ended = steps(
        r#"
- http: { get: "${{ inputs.url }}/echo?a=1", query: { b: 2, none: null, list: [x, "y z"] }, headers: { X-Number: 7 } }
  expect: ["json.uri == '/echo?a=1&b=2&list=x&list=y+z'", "json.headers['x-number'] == '7'", "headers['x-two'] == 'a, b'"]
- http: { put: "${{ inputs.url }}/echo", form: { user: "a b", n: 1 } }
  expect: ["json.body == 'n=1&user=a+b'", "json.headers['content-type'] == 'application/x-www-form-urlencoded'", json.method == 'PUT']
- http: { patch: "${{ inputs.url }}/echo", body: "as it is ${{ 1 + 1 }}" }
  expect: [json.body == 'as it is 2', json.method == 'PATCH']
- http: { delete: "${{ inputs.url }}/echo", json: { list: [1, true, null], text: "${{ inputs.url }}" } }
  expect: ["fromJSON(json.body) == {'list': [1, true, null], 'text': inputs.url}"]
- http: { head: "${{ inputs.url }}/text" }
  expect: [status == 200, body == '', json == null]
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn redirects_are_followed_only_if_asked_for() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/redirect" }, expect: [status == 302, headers.location == '/text'] }
- { http: { get: "${{ inputs.url }}/redirect", follow-redirects: true }, expect: [body == 'just text'] }
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn a_session_has_a_base_headers_and_a_cookie_jar_for_the_cell() {
    let url = server::start().await;
    let ended = spec(
        r#"
sessions:
  api: { base: "${{ inputs.url }}/", headers: { X-Token: "t-${{ steps.token.value }}" } }
defaults: { http: { session: api } }
phases:
  main:
    - { id: token, http: { session: none, get: "${{ inputs.url }}/count" }, capture: { value: json.n }, expect: ["cookies == {}"] }
    - { http: { get: /login }, expect: [cookies.session == 'abc123'] }
    - http: { get: echo }
      expect: ["json.headers.cookie == 'session=abc123'", "json.headers['x-token'] == 't-1'", cookies.session == 'abc123']
    - { http: { get: /echo, headers: { X-Token: own } }, expect: ["json.headers['x-token'] == 'own'"] }
    - { http: { session: none, get: "${{ inputs.url }}/echo" }, expect: ["!('cookie' in json.headers)", "!('x-token' in json.headers)"] }
    - { http: { session: none, get: "${{ inputs.url }}/login" }, expect: [cookies.session == 'abc123'] }
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn an_unreachable_server_a_broken_answer_and_a_timeout_are_failures_that_say_why() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { name: refused, http: { get: "http://127.0.0.1:1/" }, continue-on-failure: true }
- { name: broken, http: { get: "${{ inputs.url }}/drop" }, continue-on-failure: true }
- { name: slow, http: { get: "${{ inputs.url }}/slow/60000" }, timeout: 100ms, continue-on-failure: true }
- { name: no tls, http: { get: "https://${{ inputs.url.replace('http://', '') }}/" }, continue-on-failure: true }
- { name: no base, http: { get: "${{ inputs.url.replace(inputs.url, '/x') }}" } }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    let reason = |n: usize| ended.reason(&format!("main/{n}"));
    assert!(
        reason(0).contains("can't connect") && reason(0).contains("refused"),
        "{}",
        reason(0)
    );
    assert!(reason(1).contains("broke off"), "{}", reason(1));
    assert_eq!(reason(2), "timed out after 100ms");
    assert!(reason(3).contains("can't connect"), "{}", reason(3));
    assert!(
        reason(4).contains("no session with a base"),
        "{}",
        reason(4)
    );
    for n in 0..5 {
        assert_eq!(
            ended.step(&format!("main/{n}")).outcome,
            Outcome::Failed,
            "{n}"
        );
    }
}

#[tokio::test]
async fn json_is_null_when_the_body_is_not_json_and_the_failure_shows_what_it_is() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/text" }, expect: [json == null, body == 'just text'] }
- { http: { get: "${{ inputs.url }}/text" }, expect: [json.id == 1] }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(ended.step("main/0").outcome, Outcome::Passed);
    let step = ended.step("main/1");
    assert!(
        step.checks[1].error.as_ref().unwrap().contains("null"),
        "{:?}",
        step.checks
    );
    let notes = step.failure.clone().unwrap().notes;
    assert!(
        notes[0].contains("text/plain") && notes[0].contains("just text"),
        "{notes:?}"
    );
}

#[tokio::test]
async fn the_reason_has_what_an_error_status_came_with_masked_and_in_one_line() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/error/page" }, continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/error/json" }, expect: [status == 200, json.ok], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/error/empty" }, continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/error/json" }, capture: { key: { secret: json.key } }, continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/error/json" }, expect: [status == 500] }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(
        ended.reason("main/0"),
        "check failed: status is 2xx (status = 500): Server Error it's <class 'Gone'> the connection is closed"
    );
    let json = ended.reason("main/1");
    assert!(
        json.contains("(status = 500) (and 1 more): { \"error\": \"the connection is closed\", \"key\": \"a-key"),
        "{json}"
    );
    assert_eq!(
        ended.reason("main/2"),
        "check failed: status is 2xx (status = 500)"
    );
    let secret = ended.reason("main/3");
    assert!(
        secret.contains("the connection is closed") && secret.contains("\"key\": \"***\""),
        "{secret}"
    );
    assert_eq!(ended.step("main/4").outcome, Outcome::Passed);
}

#[tokio::test]
async fn the_reason_says_that_a_page_came_instead_of_json_wherever_json_is_read() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/page" }, expect: [json.state == 'ok'], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, expect: [json != null], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, capture: { state: json.state }, expect: [state == 'ok'], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, capture: { state: json.state }, continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, expect: ["json.all(j, j)"], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, expect: ["json[0] == 1"], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, expect: [json + 1 == 2], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, poll: { until: json.state == 'ok', timeout: 1s, interval: 10ms }, continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/status/204" }, expect: [json.state == 'ok'], continue-on-failure: true }
- { http: { get: "${{ inputs.url }}/page" }, capture: { key: { secret: json.key } }, expect: [json.state == 'ok'] }
"#,
    )
    .url(&url)
    .run()
    .await;
    let page = "the body isn't JSON: text/html; charset=utf-8, 41 bytes, beginning \"<html><body>being serviced</body></html>";
    for n in 0..8 {
        let step = ended.step(&format!("main/{n}"));
        assert_eq!(step.outcome, Outcome::Failed, "{n}");
        let reason = ended.reason(&format!("main/{n}"));
        assert!(reason.contains(page), "{n}: {reason}");
    }
    let empty = ended.reason("main/8");
    assert!(
        empty.contains("`json` is null (the body is empty)"),
        "{empty}"
    );
    // Nothing of a body that may hold the secret.
    let secret = format!("{:?}", ended.step("main/9"));
    assert!(!secret.contains("serviced"), "{secret}");
}

#[tokio::test]
async fn certificates_are_verified_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let (url, pem) = server::start_tls().await;
    std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
    let mut rig = steps(
        r#"
- { name: unknown, http: { get: "${{ inputs.url }}/" }, continue-on-failure: true }
- { name: unverified, http: { get: "${{ inputs.url }}/", tls: { verify: false } }, expect: [body == 'over tls'] }
- { name: trusted, http: { get: "${{ inputs.url }}/", tls: { ca: ca.pem } }, expect: [body == 'over tls'] }
"#,
    )
    .url(&url);
    rig.workspace = Some(dir.path().to_owned());
    let ended = rig.run().await;
    assert_eq!(ended.step("main/0").outcome, Outcome::Failed);
    assert!(
        ended
            .reason("main/0")
            .to_lowercase()
            .contains("certificate"),
        "{}",
        ended.reason("main/0")
    );
    assert_eq!(
        ended.step("main/1").outcome,
        Outcome::Passed,
        "{}",
        ended.reason("main/1")
    );
    assert_eq!(
        ended.step("main/2").outcome,
        Outcome::Passed,
        "{}",
        ended.reason("main/2")
    );
}

#[tokio::test]
async fn the_trace_context_goes_along() {
    let url = server::start().await;
    let mut rig = steps(
        r#"
- { http: { get: "${{ inputs.url }}/echo" }, capture: { span: json.headers.traceparent } , id: header }
- { run: 'printf %s "$TRACEPARENT"', capture: { span: stdout }, id: variable }
- { http: { get: "${{ inputs.url }}/echo", headers: { traceparent: own } }, expect: [json.headers.traceparent == 'own'] }
- { run: { script: 'test "$TRACEPARENT" = own', env: { TRACEPARENT: own } } }
- { name: "${{ steps.header.span }}", expect: ["true"] }
- { name: "${{ steps.variable.span }}", expect: ["true"] }
- { name: "${{ run.id }}", expect: ["true"] }
"#,
    )
    .url(&url);
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    rig.traceparent = Some(context.to_owned());
    let ended = rig.run().await;
    ended.passed();
    // The steps' own spans, derived as the exporter derives them.
    let context = TraceContext::parse(context).unwrap();
    let run = RunId(ended.step("main/6").name.clone());
    let trace = AttemptTrace::of(context, &run, &"cell".into(), 1);
    let span = |path: &str| trace.parent(trace.step(path, 1));
    assert_eq!(ended.step("main/4").name, span("main/0"));
    assert_eq!(ended.step("main/5").name, span("main/1"));
}

#[tokio::test]
async fn without_a_trace_nothing_goes_along() {
    let url = server::start().await;
    let rig = steps(
        r#"
- { http: { get: "${{ inputs.url }}/echo" }, expect: ["!('traceparent' in json.headers)"] }
- { run: 'test -z "${TRACEPARENT-}"' }
"#,
    )
    .url(&url);
    rig.run().await.passed();
}

#[tokio::test]
async fn polling_repeats_until_it_holds_and_is_never_flaky() {
    let url = server::start().await;
    let ended = steps(
        r#"
- http: { get: "${{ inputs.url }}/after/3" }
  poll: { until: json.calls > 0, timeout: 20s, interval: 10ms }
  expect: [json.calls == 4]
- http: { get: "http://127.0.0.1:1/" }
  poll: { until: "true", timeout: 150ms, interval: 10ms }
  continue-on-failure: true
- http: { get: "${{ inputs.url }}/status/200" }
  poll: { until: json.code == 7, timeout: 150ms, interval: 10ms }
"#,
    )
    .url(&url)
    .run()
    .await;
    let first = ended.step("main/0");
    assert_eq!(
        (first.outcome, first.polls, first.tries),
        (Outcome::Passed, 4, 1)
    );
    assert!(
        ended.reason("main/1").contains("refused"),
        "{}",
        ended.reason("main/1")
    );
    assert!(
        ended.reason("main/2").contains("did not hold within 150ms")
            && ended.reason("main/2").ends_with("(json.code = 200)"),
        "{}",
        ended.reason("main/2")
    );
    let last = ended.step("main/2");
    assert_eq!(last.checks[0].parts[0].value, "200");
    assert!(
        last.failure
            .clone()
            .unwrap()
            .response
            .unwrap()
            .contains("\"code\":200")
    );
}

#[tokio::test]
async fn a_retried_step_that_passes_is_flaky() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { id: a, http: { get: "${{ inputs.url }}/after/2" }, retry: { times: 3, delay: 10ms } }
- { expect: [steps.a.attempt == 3, steps.a.outcome == 'flaky'] }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Flaky, "{:#?}", ended.detail());
    assert_eq!(ended.step("main/0").tries, 3);
}

#[tokio::test]
async fn what_is_beyond_the_limit_of_a_body_is_never_judged_as_if_it_were_not_there() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { name: only the head, http: { get: "${{ inputs.url }}/big" }, expect: ["headers['content-length'] == '17825805'"] }
- { name: check, http: { get: "${{ inputs.url }}/big" }, expect: ["!body.contains('ERROR')"], continue-on-failure: true }
- { name: check of json, http: { get: "${{ inputs.url }}/big" }, expect: ["json == null"], continue-on-failure: true }
- { name: capture, http: { get: "${{ inputs.url }}/big" }, capture: { n: body.size() }, continue-on-failure: true }
- { name: secret, http: { get: "${{ inputs.url }}/big" }, capture: { n: { secret: body } }, continue-on-failure: true }
- { name: skip, http: { get: "${{ inputs.url }}/big" }, skip: { if: "!body.contains('ERROR')", reason: no error }, continue-on-failure: true }
- { name: poll, http: { get: "${{ inputs.url }}/big" }, poll: { until: "!body.contains('ERROR')" }, continue-on-failure: true }
- { name: endless, http: { get: "${{ inputs.url }}/endless" }, expect: ["!body.contains('ERROR')"], continue-on-failure: true }
- { name: another check fails, http: { get: "${{ inputs.url }}/big" }, expect: ["!body.contains('ERROR')", status == 404], continue-on-failure: true }
- { name: endless head, http: { get: "${{ inputs.url }}/endless" }, expect: [status == 200] }
"#,
    )
    .url(&url)
    .run()
    .await;
    for (step, outcome, said) in [
        (0, Outcome::Passed, ""),
        (
            1,
            Outcome::Errored,
            "`body` was cut at 16777216 bytes of 17825805, so it can't be judged",
        ),
        (
            2,
            Outcome::Errored,
            "the body was cut at 16777216 bytes of 17825805",
        ),
        (
            3,
            Outcome::Errored,
            "`body` was cut at 16777216 bytes of 17825805",
        ),
        (4, Outcome::Errored, "was cut at 16777216 bytes of 17825805"),
        (
            5,
            Outcome::Errored,
            "`body` was cut at 16777216 bytes of 17825805",
        ),
        (
            6,
            Outcome::Errored,
            "`body` was cut at 16777216 bytes of 17825805",
        ),
        (
            7,
            Outcome::Errored,
            "`body` was cut at 16777216 bytes of more",
        ),
        (8, Outcome::Failed, "status == 404"),
        (9, Outcome::Passed, ""),
    ] {
        let step = ended.step(&format!("main/{step}"));
        let reason = step.reason.clone().unwrap_or_default();
        assert_eq!(step.outcome, outcome, "{}: {reason}", step.name);
        assert!(reason.contains(said), "{}: {reason}", step.name);
    }
    let failure = ended.step("main/1").failure.clone().unwrap();
    let response = failure.response.unwrap();
    assert!(
        response.contains("(17825805 bytes in all)"),
        "{}",
        &response[..500]
    );
}

#[tokio::test]
async fn an_output_beyond_the_limit_is_not_judged() {
    let much = "head -c 17000000 /dev/zero | tr '\\\\0' x";
    let yaml = format!(
        r#"
- {{ name: stdout, run: "{much}; echo ERROR", expect: ["!stdout.contains('ERROR')"], continue-on-failure: true }}
- {{ name: stderr, run: "{{ {much}; }} >&2", expect: ["!stderr.contains('ERROR')"], continue-on-failure: true }}
- {{ name: the other, run: "echo fine; {{ {much}; }} >&2", expect: [stdout.contains('fine'), exit_code == 0] }}
- {{ name: exec, exec: {{ service: w, script: "{much}" }}, expect: [stdout == ''], continue-on-failure: true }}
- {{ name: run, container: {{ run: job }}, expect: [stdout == ''], continue-on-failure: true }}
"#
    );
    let mut rig = steps(&yaml);
    rig.prepend(&format!(
        "services:\n  w: {{ process: [sleep, '60'] }}\n  job: {{ process: [sh, -c, \"{much}\"], start: manual }}\n"
    ));
    let ended = rig.run().await;
    for (step, outcome, said) in [
        (
            0,
            Outcome::Errored,
            "`stdout` was cut at 16777216 bytes of 17000006",
        ),
        (
            1,
            Outcome::Errored,
            "`stderr` was cut at 16777216 bytes of 17000000",
        ),
        (2, Outcome::Passed, ""),
        (
            3,
            Outcome::Errored,
            "`stdout` was cut at 16777216 bytes of 17000000",
        ),
        (
            4,
            Outcome::Errored,
            "`stdout` was cut at 16777216 bytes of 17000000",
        ),
    ] {
        let step = ended.step(&format!("main/{step}"));
        let reason = step.reason.clone().unwrap_or_default();
        assert_eq!(step.outcome, outcome, "{}: {reason}", step.name);
        assert!(reason.contains(said), "{}: {reason}", step.name);
    }
}

#[tokio::test]
async fn a_body_is_read_by_its_byte_order_mark_and_charset() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { http: { get: "${{ inputs.url }}/latin" }, expect: ["json.name == 'café'", "body.contains('café')"] }
- { http: { get: "${{ inputs.url }}/marked" }, expect: ["json.name == 'café'", "body.startsWith('{')"] }
- { http: { get: "${{ inputs.url }}/utf16" }, expect: ["json.name == 'café'", "body.startsWith('{')"] }
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
}
