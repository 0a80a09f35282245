//! `sse` steps.

use crate::rig::steps;
use crate::server;
use phalanx_shared::outcome::Outcome;

#[tokio::test]
async fn events_are_collected_until_one_holds_or_the_stream_ends() {
    let url = server::start().await;
    let ended = steps(
        r#"
- sse: { get: "${{ inputs.url }}/events?n=4&hang=1", until: event.json.i == 2 }
  expect: [events.size() == 2, event.id == '2', event.event == 'step', status == 200]
- sse: { get: "${{ inputs.url }}/events?n=3" }
  capture: { done: "events.filter(e, e.?json.?ok.orValue(false)).last().value().json" }
  expect: [events.size() == 3, done.ok == true, done.i == 3, event.json == done]
"#,
    )
    .url(&url)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn a_stream_that_ends_before_or_never_gets_there_is_a_failure_with_the_last_events() {
    let url = server::start().await;
    let ended = steps(
        r#"
- { sse: { get: "${{ inputs.url }}/events?n=3", until: event.json.i == 9 }, continue-on-failure: true }
- { sse: { get: "${{ inputs.url }}/events?n=3&hang=1", until: event.json.i == 9, timeout: 200ms }, continue-on-failure: true }
- { sse: { get: "${{ inputs.url }}/text" }, continue-on-failure: true }
- { sse: { get: "${{ inputs.url }}/status/503" }, continue-on-failure: true }
- { sse: { get: "${{ inputs.url }}/status/503" }, expect: [status == 503, "events == []"] }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert!(
        ended
            .reason("main/0")
            .contains("ended after 3 events before"),
        "{}",
        ended.reason("main/0")
    );
    assert_eq!(ended.reason("main/1"), "timed out after 200ms");
    let shown = ended
        .step("main/1")
        .failure
        .clone()
        .unwrap()
        .response
        .unwrap();
    assert!(
        shown.contains("3 events") && shown.contains("\"i\":3"),
        "{shown}"
    );
    assert!(
        ended.reason("main/2").contains("not text/event-stream"),
        "{}",
        ended.reason("main/2")
    );
    assert!(
        ended.reason("main/3").contains("status is 2xx"),
        "{}",
        ended.reason("main/3")
    );
    assert_eq!(ended.step("main/4").outcome, Outcome::Passed);
}
