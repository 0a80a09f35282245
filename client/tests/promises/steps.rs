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
        (
            Need::Engine,
            "an image that can't be pulled is errored and named",
            missing_image,
        ),
        (
            Need::Nothing,
            "a crowd of cells that fail alike is one failure with the words of the service (needs python3)",
            alike,
        ),
        (
            Need::Nothing,
            "a step that no condition lets run says which one",
            skipped_by_its_condition,
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

fn missing_image() {
    let place = Place::of_field("ux");
    let said = place.call(&["run", "m53-missing-image.yaml"]);
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    let why = "service web: pulling nosuch/image:1";
    assert!(said.stderr.contains(why), "{}", said.stderr);
}

fn alike() {
    let place = Place::of_field("ux");
    let arguments = ["run", "sixty.yaml", "--only", "os=alpine"];
    let said = place.call(&arguments);
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    let cause = "| ImportError: libssl.so.3: cannot open shared object file";
    assert_eq!(said.stderr.matches(cause).count(), 1, "{}", said.stderr);
    for part in [
        "exited unexpectedly, with code 127",
        "the same in 2 other cells",
        "9 passed, 3 failed",
    ] {
        assert!(said.stderr.contains(part), "{part}: {}", said.stderr);
    }
}

fn skipped_by_its_condition() {
    let place = Place::of_field("ux");
    let arguments = ["run", "m09-missing-reason.yaml", "--report", "junit=o.xml"];
    let said = place.call(&arguments);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let junit = place.read("o.xml");
    assert_eq!(junit.matches("<skipped").count(), 2, "{junit}");
    assert!(
        junit.contains("matrix.ver == 'v2'") || junit.contains("matrix.ver == &apos;v2&apos;"),
        "{junit}"
    );
}
