//! What steps see and keep: answers, output, cookies, readiness by a log line.

use crate::engine_lab::Lab;
use crate::place::{self, Place};
use crate::{Need, Test};

pub fn tests() -> Vec<Test> {
    vec![
        (
            Need::Nothing,
            "an answer beyond the limit is not judged as if it ended there (needs python3)",
            large_answer,
        ),
        (
            Need::Engine,
            "secure cookies get the same verdict whatever way a container is reached",
            secure_cookie,
        ),
        (
            Need::Nothing,
            "a log predicate matches what is shown, without colours",
            ready_log_colours,
        ),
        (
            Need::Nothing,
            "a step that timed out shows what it printed",
            step_timeout,
        ),
        (
            Need::Nothing,
            "a program that doesn't exist is named with a suggestion",
            no_program,
        ),
    ]
}

fn large_answer() {
    let place = Place::of_field("large-answer-negative-check");
    let place::Said { code, stderr, .. } = place.call(&["run", "spec.yaml"]);
    assert_eq!(code, Some(3), "{stderr}");
    let said = "`body` was cut at 16777216 bytes of 17825805, so it can't be judged";
    assert!(stderr.contains(said), "{stderr}");
    assert!(stderr.contains("17825805 bytes in all"), "{stderr}");
}

fn secure_cookie() {
    let lab = Lab::new();
    let place = Place::of_field("secure-cookie-of-a-container");
    place.replace("spec.yaml", "bb:1", &lab.image);
    place.replace("spec.yaml", "[nc, ", "[busybox, nc, ");
    for reach in ["direct", "published"] {
        let mut command = place.phalanx(&["run", "spec.yaml"]);
        command.env("PHALANX_DOCKER__REACH", reach);
        let said = place::ended(&mut command);
        assert_eq!(said.code, Some(0), "{reach}: {}", said.stderr);
    }
}

fn ready_log_colours() {
    let place = Place::of_field("ready-log-colours");
    place.replace("spec.yaml", "timeout: 5s", "timeout: 1m");
    let said = place.call(&["run", "spec.yaml"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
}

fn step_timeout() {
    let place = Place::of_field("ux");
    let said = place.call(&["run", "m63-step-timeout.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("stdout until then"), "{}", said.stderr);
    assert!(said.stderr.contains("working"), "{}", said.stderr);
}

fn no_program() {
    let place = Place::of_field("ux");
    let said = place.call(&["run", "m55-noprog.yaml"]);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let why = "there is no program `pyton3` in the PATH of the agent's host";
    assert!(said.stderr.contains(why), "{}", said.stderr);
}
