//! Services: when they start, when they are ready, how they end, and what steps do to them.

use crate::rig::{Ended, spec, steps};
use crate::server;
use phalanx_agent::policy::Policy;
use phalanx_agent::runtime::contract::{Addresses, Fault, Prepared, RuntimeError};
use phalanx_agent::runtime::fake::script::{
    CommandScript, ExitScript, Printed, Script, ServiceScript,
};
use phalanx_shared::event::{Culprit, EventKind, ServiceState};
use phalanx_shared::outcome::Outcome;
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn the_first_step_starts_when_the_services_it_names_are_ready_not_the_last_one() {
    let script = Script::default().service(
        "slow",
        ServiceScript {
            start_delay: ms(20_000),
            ..ServiceScript::default()
        },
    );
    let began = std::time::Instant::now();
    let ended = spec(
        r#"
services:
  slow: { image: slow }
  quick: { image: quick, ready: { log: "listening on \\d+" } }
phases:
  main: [{ wait: { service: quick, until: ready } }]
"#,
    )
    .script(script.service(
        "quick",
        ServiceScript {
            output: vec![
                Printed::line(ms(30), "starting"),
                Printed::line(ms(60), "listening on 80"),
            ],
            ..ServiceScript::default()
        },
    ))
    .run()
    .await;
    ended.passed();
    assert!(began.elapsed() < ms(10_000));
}

#[tokio::test]
async fn dependencies_start_in_the_order_of_their_conditions_and_pulls_are_told() {
    let script = Script::default()
        .service(
            "db",
            ServiceScript {
                prepared: Some(Prepared::Pulled {
                    image: "postgres:17".to_owned(),
                    detail: "postgres:17, pulled in 1s".to_owned(),
                }),
                healthy_after: Some(ms(50)),
                ..ServiceScript::default()
            },
        )
        .service(
            "job",
            ServiceScript {
                exit: Some(ExitScript {
                    after: ms(30),
                    code: 0,
                    oom: false,
                }),
                ..ServiceScript::default()
            },
        );
    let ended = spec(
        r#"
services:
  shop: { image: shop, depends_on: { db: { condition: service_healthy }, job: { condition: service_completed_successfully } } }
  db: { image: "postgres:17" }
  job: { image: job, depends_on: [db] }
phases:
  main: [{ wait: { service: shop, until: ready } }]
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.states("db")[0], ServiceState::Pulled);
    let at = |call: &str| ended.calls.iter().position(|made| made == call).unwrap();
    assert!(
        at("start db") < at("start job") && at("start job") < at("start shop"),
        "{:?}",
        ended.calls
    );
}

#[tokio::test]
async fn a_service_that_exits_unasked_fails_the_step_in_progress_at_once_with_its_log() {
    let script = Script::default().service(
        "db",
        ServiceScript {
            output: vec![Printed::line(ms(50), "FATAL: no space left")],
            exit: Some(ExitScript {
                after: ms(100),
                code: 3,
                oom: false,
            }),
            inspect: vec!["restarts: 0".to_owned()],
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { db: { image: db } }
phases:
  main: [{ wait: { for: 30s } }, { run: "true" }]
  end: [{ always: true, run: "true" }]
"#,
    )
    .script(script)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    assert_eq!(
        ended.reason("main/0"),
        "service db exited unexpectedly, with code 3"
    );
    let failure = ended.step("main/0").failure.clone().unwrap();
    assert_eq!(failure.logs[0].lines, ["FATAL: no space left"]);
    assert_eq!(failure.notes, ["restarts: 0"]);
    assert_eq!(ended.step("end/0").outcome, Outcome::Passed);
    assert_eq!(ended.states("db").last(), Some(&ServiceState::Exited));
}

/// `db` ends with a code while a step is in progress that waits for `end`, which lets it end.
async fn while_a_service_ends(services: &str, code: i64, step: &str) -> Ended {
    let script = Script::default().service(
        "db",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(50),
                code,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    );
    spec(&format!(
        "services: {services}\nphases: {{ main: [{step}, {{ wait: {{ for: 1s }} }}] }}\n"
    ))
    .script(script)
    .run()
    .await
}

#[tokio::test]
async fn a_service_that_nobody_needs_may_end_by_itself_with_exit_code_0() {
    let step = "{ wait: { for: 1s } }";
    for services in [
        "{ db: { image: db } }",
        "{ db: { image: db, restart: 'no', ports: [80] } }",
        "{ db: { image: db, restart: 'on-failure:1' }, app: { image: app, depends_on: [db] } }",
    ] {
        let ended = while_a_service_ends(services, 0, step).await;
        assert_eq!(ended.outcome(), Outcome::Passed, "{services}");
        let ended = while_a_service_ends(services, 3, step).await;
        assert_eq!(ended.outcome(), Outcome::Failed, "{services}");
    }
}

#[tokio::test]
async fn a_service_that_stays_may_not_end_and_its_failure_says_how_to_declare_a_job() {
    for services in [
        "{ db: { image: db, ports: [80] } }",
        "{ db: { image: db }, app: { image: app, depends_on: [db] } }",
    ] {
        let ended = while_a_service_ends(services, 0, "{ wait: { for: 1s } }").await;
        assert_eq!(ended.outcome(), Outcome::Failed, "{services}");
        let reason = ended.reason("main/0");
        assert!(
            reason.contains("exited unexpectedly, with code 0"),
            "{reason}"
        );
        assert!(reason.contains("`restart: \"no\"` in db"), "{reason}");
    }
}

#[tokio::test]
async fn a_step_that_names_a_service_that_ended_fails_and_says_that_it_did() {
    let ended = spec(
        "services: { db: { image: db, restart: 'no' } }\nphases: { main: [{ wait: { service: db, until: exited } }, { exec: { service: db, command: [x] } }] }\n",
    )
    .script(Script::default().service(
        "db",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(50),
                code: 0,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    ))
    .run()
    .await;
    assert_eq!(ended.step("main/0").outcome, Outcome::Passed);
    let reason = ended.reason("main/1");
    assert!(
        reason.contains("it ended as a job does, with code 0"),
        "{reason}"
    );
}

#[tokio::test]
async fn out_of_memory_is_named() {
    let script = Script::default().service(
        "db",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(30),
                code: 137,
                oom: true,
            }),
            ..ServiceScript::default()
        },
    );
    let ended =
        spec("services: { db: { image: db } }\nphases: { main: [{ wait: { for: 30s } }] }\n")
            .script(script)
            .run()
            .await;
    assert!(
        ended.reason("main/0").contains("out of memory"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn a_service_is_ready_by_its_own_check_of_the_status_whatever_it_is() {
    let url = crate::server::start().await;
    let ready = |path: &str, expect: &str| {
        spec(&format!(
            "services: {{ web: {{ image: web, ready: {{ http: {{ get: \"${{{{ inputs.url }}}}{path}\"{expect} }}, timeout: 5s }} }} }}\nphases: {{ main: [{{ wait: {{ service: web, until: ready }} }}] }}\n"
        ))
        .url(&url)
        .run()
    };
    ready("/status/403", ", expect: [status < 500]")
        .await
        .passed();
    ready("/count", "").await.passed();
}

#[tokio::test]
async fn a_service_that_is_not_ready_in_time_is_a_failure_that_says_what_was_asked() {
    let ended = spec(
        r#"
services:
  web: { image: web, ports: [80], ready: { http: { get: "http://127.0.0.1:1/" }, timeout: 200ms } }
phases: { main: [{ wait: { service: web, until: ready } }] }
"#,
    )
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    let reason = ended.reason("main/0");
    assert!(
        reason.contains("service web isn't ready: not within 200ms") && reason.contains("refused"),
        "{reason}"
    );
    let web = Some(Culprit::Service {
        service: "web".to_owned(),
    });
    assert_eq!(ended.step("main/0").culprit, web);
    let verdict = ended.events.iter().find_map(|kind| match kind {
        EventKind::AttemptFinished { culprit, .. } => Some(culprit.clone()),
        _ => None,
    });
    assert_eq!(verdict, Some(web));
}

#[tokio::test]
async fn a_failed_pull_and_a_missing_engine_are_errored() {
    let error = RuntimeError::new(Fault::Engine, "pull of nothing:1 failed: not found");
    let script = Script::default().service(
        "web",
        ServiceScript {
            prepare_error: Some(error),
            ..ServiceScript::default()
        },
    );
    let yaml = "services: { web: { image: 'nothing:1' } }\nphases: { main: [{ wait: { service: web, until: ready } }] }\n";
    let ended = spec(yaml).script(script).run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("not found"),
        "{}",
        ended.reason("main/0")
    );

    let mut rig = spec(yaml);
    rig.containers = false;
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("no engine answers"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn exec_runs_in_a_service_and_its_output_is_checked_and_captured() {
    let mut said = CommandScript::prints("psql", "7\n");
    said.contains = "psql -c select".to_owned();
    let script = Script::default().service(
        "db",
        ServiceScript {
            commands: vec![said],
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { db: { image: db } }
phases:
  main:
    - { id: q, exec: { service: db, command: [psql, -c, select] }, capture: { n: int(stdout.trim()) }, expect: [n == 7, stderr == ''] }
    - { exec: { service: db, command: "${{ ['psql', '-c'] + ['select'] }}" }, expect: [stdout == string(steps.q.n) + '\n'] }
    - { exec: { service: db, command: [nothing] } }
"#,
    )
    .script(script)
    .run()
    .await;
    assert_eq!(
        ended.step("main/1").outcome,
        Outcome::Passed,
        "{:#?}",
        ended.detail()
    );
    assert_eq!(
        ended.reason("main/2"),
        "check failed: exit_code == 0 (exit_code = 127): fake: no script for `nothing`"
    );
    assert_eq!(ended.violations, Vec::<String>::new());
}

#[tokio::test]
async fn steps_start_stop_kill_and_restart_services() {
    let ended = spec(
        r#"
services:
  worker: { image: worker, start: manual, depends_on: [helper] }
  helper: { image: helper, start: manual }
  db: { image: db }
phases:
  main:
    - { container: { start: worker } }
    - { wait: { service: helper, until: ready } }
    - { container: { kill: db } }
    - { container: { start: db } }
    - { container: { restart: db } }
    - { container: { pause: db } }
    - { container: { unpause: db } }
    - { container: { disconnect: db } }
    - { container: { connect: db } }
    - { container: { stop: db } }
    - { name: reads a stopped one, run: "echo ${{ services.db.host }}" }
"#,
    )
    .run()
    .await;
    assert_eq!(
        ended.step("main/9").outcome,
        Outcome::Passed,
        "{:#?}",
        ended.detail()
    );
    assert_eq!(
        ended.reason("main/10"),
        "service db isn't running: a step stopped it"
    );
    assert_eq!(ended.violations, Vec::<String>::new());
    use ServiceState::{Created, Ready, Started, Stopped};
    assert_eq!(
        ended.states("db"),
        [
            Created, Started, Ready, Stopped, Started, Ready, Stopped, Started, Ready, Stopped
        ]
    );
}

#[tokio::test]
async fn a_failure_names_what_other_steps_did_to_the_services_meanwhile() {
    let url = server::start().await;
    let ended = spec(
        r#"
services:
  db: { image: db }
  app: { image: app, depends_on: [db] }
  other: { image: other }
phases:
  main:
    - { container: { pause: app } }
    - name: of a paused one
      http: { get: "${{ inputs.url }}/slow/60000", headers: { x-host: "${{ services.app.host }}" } }
      timeout: 100ms
      continue-on-failure: true
    - { container: { unpause: app } }
    - continue-on-failure: true
      parallel:
        - http: { get: "${{ inputs.url }}/count", headers: { x-host: "${{ services.app.host }}" } }
          poll: { until: json.n > 1000000, interval: 10ms }
          expect: [json.n == 0]
        - steps:
            - { http: { get: "${{ inputs.url }}/seen" }, poll: { until: json.n > 0, interval: 10ms } }
            - { container: { kill: db } }
            - { container: { start: db } }
            - { http: { get: "${{ inputs.url }}/jump" } }
    - { http: { get: "${{ inputs.url }}/status/500", headers: { x-host: "${{ services.app.host }}" } } }
"#,
    )
    .url(&url)
    .run()
    .await;
    assert_eq!(
        ended.reason("main/1"),
        "timed out after 100ms; app is paused by a step"
    );
    let polled = ended.reason("main/3/0");
    assert!(
        polled.starts_with("check failed: json.n == 0")
            && polled.ends_with("; meanwhile db was killed, started by a step"),
        "{polled}"
    );
    assert_eq!(
        ended.reason("main/4"),
        "check failed: status is 2xx (status = 500): {\"code\":500}"
    );
    assert_eq!(ended.violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_manual_service_that_nobody_started_is_named_with_the_remedy() {
    let ended = spec(
        "services: { w: { image: w, start: manual } }\nphases: { main: [{ wait: { service: w, until: ready } }] }\n",
    )
    .run()
    .await;
    assert!(
        ended.reason("main/0").contains("container: { start: w }"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn run_starts_a_service_and_has_its_output_and_exit_code() {
    let script = Script::default().service(
        "job",
        ServiceScript {
            output: vec![Printed::line(ms(5), "did it")],
            exit: Some(ExitScript {
                after: ms(20),
                code: 0,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { job: { image: job, start: manual } }
phases:
  main:
    - { container: { run: job }, expect: [stdout.trim() == 'did it', exit_code == 0] }
    - { container: { run: job }, capture: { out: stdout }, expect: [out.contains('did it')] }
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn a_job_that_a_step_waits_for_may_exit() {
    let script = Script::default().service(
        "job",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(10),
                code: 0,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { job: { image: job } }
phases: { main: [{ wait: { for: 50ms } }, { wait: { service: job, until: exited } }] }
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    assert_eq!(ended.states("job").last(), Some(&ServiceState::Exited));
}

#[tokio::test]
async fn addresses_are_those_of_the_service_and_the_scheme_is_its_ports() {
    let script = Script::default().service(
        "web",
        ServiceScript {
            addresses: Addresses {
                host: "web".to_owned(),
                ip: Some("10.1.2.3".parse().unwrap()),
                ipv6: Some("fd00::3".parse().unwrap()),
                ports: vec![("8443".to_owned(), "[fd00::3]:8443".parse().unwrap())],
            },
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { web: { image: web, ports: [{ target: 8443, app_protocol: https }], environment: { SELF: "${{ services.web.host }}" } } }
phases:
  main:
    - expect:
        - services.web.url == 'https://[fd00::3]:8443'
        - services.web.internal_url == 'https://web:8443'
        - services.web.ip == '10.1.2.3' && services.web.ipv6 == 'fd00::3'
        - services.web.port[8443] == 8443
        - "['web'].all(name, services[name].host == 'web')"
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
}

#[tokio::test]
async fn a_definition_that_cannot_be_evaluated_is_errored_at_its_place() {
    let mut rig = spec(
        "services: { web: { image: \"${{ matrix.images[0] }}\" } }\nstrategy: { matrix: { images: [[a]] } }\nphases: { main: [{ wait: { service: web, until: ready } }] }\n",
    );
    rig.matrix
        .insert("images".to_owned(), serde_json::json!([]));
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("service web: test.yaml:3:"),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn logs_are_handed_over_before_the_verdict_and_are_the_service_s_own() {
    let lines = (0..500)
        .map(|n| Printed::line(Duration::ZERO, &format!("line {n}")))
        .collect();
    let script = Script::default().service(
        "noisy",
        ServiceScript {
            output: lines,
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        "services: { noisy: { image: noisy, ready: { log: 'line 499' } } }\nphases: { main: [{ wait: { service: noisy, until: ready } }] }\n",
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    let all: String = ended
        .logs
        .iter()
        .map(|c| String::from_utf8_lossy(&c.bytes).into_owned())
        .collect();
    assert_eq!(all.lines().count(), 500);
}

#[tokio::test]
async fn host_processes_are_refused_where_the_agent_forbids_them() {
    let mut rig = spec("phases: { main: [{ run: 'true' }] }\n");
    rig.policy = Policy::closed();
    let ended = rig.run().await;
    assert_eq!(ended.outcome(), Outcome::Errored);
    assert!(
        ended.reason("main/0").contains("(rule `run`, "),
        "{}",
        ended.reason("main/0")
    );
}

#[tokio::test]
async fn a_service_that_does_not_exist_and_files_in_and_out() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "a").unwrap();
    let mut rig = spec(
        r#"
services: { db: { image: db } }
phases:
  main:
    - { cp: { from: a.txt, to: "db:/tmp/a.txt" } }
    - { cp: { from: missing.txt, to: "db:/tmp/a.txt" }, continue-on-failure: true }
    - { cp: { from: "${{ matrix.up }}", to: "db:/tmp/a.txt" }, continue-on-failure: true }
    - { exec: { service: "${{ matrix.nobody }}", command: [x] } }
"#,
    );
    rig.prepend("strategy: { matrix: { nobody: [nobody], up: [../a.txt] } }\n");
    rig.workspace = Some(dir.path().to_owned());
    rig.matrix.insert("nobody".to_owned(), "nobody".into());
    rig.matrix.insert("up".to_owned(), "../a.txt".into());
    let ended = rig.run().await;
    assert_eq!(
        ended.step("main/0").outcome,
        Outcome::Passed,
        "{:#?}",
        ended.detail()
    );
    assert!(
        ended.reason("main/1").contains("there is no"),
        "{}",
        ended.reason("main/1")
    );
    assert!(
        ended.reason("main/2").contains("leaves the workspace"),
        "{}",
        ended.reason("main/2")
    );
    assert_eq!(ended.reason("main/3"), "there is no service nobody");
    assert_eq!(ended.step("main/3").outcome, Outcome::Errored);
}

#[tokio::test]
async fn a_failed_command_s_last_words_are_in_its_reason_and_a_timed_out_one_shows_what_it_printed()
{
    let mut rig = steps(
        r#"
- { name: fails, run: "echo first >&2; printf '\\033[31mno such table\\033[0m hidden-value-0815\\n\\n' >&2; exit 3", continue-on-failure: true }
- { name: slow, run: "echo working; echo and complaining >&2; sleep 30", timeout: 1s, continue-on-failure: true }
- { name: no program, exec: { service: w, command: [slep, '1'] }, continue-on-failure: true }
- { name: fine, run: "echo fine >&2" }
"#,
    )
    .secret("key", "hidden-value-0815");
    rig.prepend("services:\n  w: { process: [sleep, '60'] }\n");
    let ended = rig.run().await;
    assert_eq!(
        ended.reason("main/0"),
        "check failed: exit_code == 0 (exit_code = 3): no such table ***"
    );
    let response = ended
        .step("main/1")
        .failure
        .clone()
        .unwrap()
        .response
        .unwrap();
    assert!(
        response.contains("stdout until then:\nworking"),
        "{response}"
    );
    assert!(
        response.contains("stderr until then:\nand complaining"),
        "{response}"
    );
    let reason = ended.reason("main/2");
    assert!(reason.contains("there is no program `slep`"), "{reason}");
    assert!(reason.contains("did you mean `sleep`?"), "{reason}");
    assert_eq!(ended.step("main/3").outcome, Outcome::Passed);
}

#[tokio::test]
async fn a_log_predicate_is_for_the_line_that_a_person_sees() {
    let ended = spec(
        r#"
services:
  app:
    process: [sh, -c, "printf '\\033[32mINFO\\033[0m server \\033[1mstarted\\033[0m\\n'; exec sleep 600"]
    ready: { log: "^INFO server started$", timeout: 20s }
phases: { main: [{ exec: { service: app, command: ["true"] } }] }
"#,
    )
    .run()
    .await;
    ended.passed();
}

fn crashing(starts: Option<u32>, code: i64) -> ServiceScript {
    ServiceScript {
        exit: Some(ExitScript {
            after: ms(20),
            code,
            oom: false,
        }),
        exiting_starts: starts,
        healthy_after: Some(ms(60)),
        ..ServiceScript::default()
    }
}

fn restarts(ended: &Ended) -> Vec<i64> {
    let codes = ended.events.iter().filter_map(|kind| match kind {
        EventKind::ServiceRestarted { code, .. } => Some(*code),
        _ => None,
    });
    codes.collect()
}

#[tokio::test]
async fn a_service_that_crashes_until_it_can_work_is_restarted_and_the_cell_passes() {
    use ServiceState::{Created, Exited, Ready, Started};
    let script = Script::default().service("app", crashing(Some(3), 7));
    let ended = spec(
        "services: { app: { image: app, restart: on-failure } }\nphases: { main: [{ wait: { service: app, until: ready } }] }\n",
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    assert_eq!(restarts(&ended), [7, 7, 7]);
    assert_eq!(
        ended.states("app"),
        [
            Created, Started, Exited, Started, Exited, Started, Exited, Started, Ready
        ]
    );
    assert_eq!(ended.violations, Vec::<String>::new());
}

#[tokio::test]
async fn the_timeout_of_readiness_spans_restarts() {
    let script = Script::default().service("app", crashing(None, 1));
    let ended = spec(
        "services: { app: { image: app, restart: always, ready: { tcp: \"9\", timeout: 2s } } }\nphases: { main: [{ wait: { service: app, until: ready } }] }\n",
    )
    .script(script)
    .run()
    .await;
    let reason = ended.reason("main/0");
    assert!(
        reason.starts_with("service app isn't ready: not within 2s"),
        "{reason}"
    );
    // 100, 200, 400 and 800 ms of pauses, and five starts of 20 ms; the sixth pause would end after the limit.
    assert!(reason.contains("it was restarted 5 times"), "{reason}");
    assert_eq!(ended.outcome(), Outcome::Failed);
}

#[tokio::test]
async fn attempts_are_used_up_and_then_the_exit_is_unexpected() {
    let script = Script::default().service("app", crashing(None, 5));
    let ended = spec(
        "services: { app: { image: app, restart: \"on-failure:2\" } }\nphases: { main: [{ wait: { service: app, until: ready } }] }\n",
    )
    .script(script)
    .run()
    .await;
    assert_eq!(
        ended.reason("main/0"),
        "service app exited unexpectedly, with code 5; it was restarted 2 times (last exit before: code 5)"
    );
    assert_eq!(restarts(&ended), [5, 5]);
}

#[tokio::test]
async fn an_exit_after_readiness_doesnt_fail_a_step_in_progress() {
    let script = Script::default().service(
        "app",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(100),
                code: 1,
                oom: false,
            }),
            exiting_starts: Some(1),
            healthy_after: Some(ms(10)),
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { app: { image: app, restart: unless-stopped } }
phases:
  main:
    - { wait: { service: app, until: ready } }
    - { wait: { for: 1s } }
    - { wait: { service: app, until: ready } }
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    assert_eq!(restarts(&ended), [1]);
}

#[tokio::test]
async fn a_step_that_restarts_a_dependency_restarts_its_dependents_that_ask_for_it() {
    let ended = spec(
        r#"
services:
  db: { image: db }
  app: { image: app, depends_on: { db: { condition: service_healthy, restart: true } } }
  other: { image: other, depends_on: [db] }
phases:
  main: [{ wait: { service: other, until: ready } }, { wait: { service: app, until: ready } }, { container: { restart: db } }]
"#,
    )
    .run()
    .await;
    ended.passed();
    let starts = |name: &str| {
        let states = ended.states(name);
        states
            .iter()
            .filter(|state| **state == ServiceState::Started)
            .count()
    };
    assert_eq!([starts("db"), starts("app"), starts("other")], [2, 2, 1]);
}

#[tokio::test]
async fn a_service_is_ready_when_all_of_its_replicas_are_and_a_step_acts_on_all_or_on_one() {
    let late = ServiceScript {
        output: vec![Printed::line(ms(300), "listening")],
        ..ServiceScript::default()
    };
    let soon = ServiceScript {
        output: vec![Printed::line(ms(20), "listening")],
        ..ServiceScript::default()
    };
    let script = Script::default()
        .service("web-1", soon)
        .service("web-2", late);
    let ended = spec(
        r#"
services:
  web: { image: web, scale: "${{ 1 + 1 }}", ready: { log: listening } }
  shop: { image: shop, depends_on: { web: { condition: service_healthy } } }
phases:
  main:
    - wait: { service: shop, until: ready }
    - expect:
        - services.web.replicas.size() == 2
        - services.web.host == 'web' && services.web.replicas[1].host == 'web-2'
        - services.shop.replicas[0].host == services.shop.host
    - container: { kill: web-2 }
    - name: the other one is the service
      wait: { service: web, until: ready }
    - container: { restart: web }
    - wait: { service: web-2, until: ready }
"#,
    )
    .script(script)
    .run()
    .await;
    ended.passed();
    let count = |call: &str| ended.calls.iter().filter(|made| *made == call).count();
    assert_eq!((count("start web-1"), count("start web-2")), (2, 2));
    assert_eq!(count("start web"), 0);
    let at = |call: &str| ended.calls.iter().position(|made| made == call).unwrap();
    assert!(at("start web-2") < at("start shop"), "{:?}", ended.calls);
    assert_eq!(ended.states("web"), []);
    assert!(ended.states("web-2").contains(&ServiceState::Ready));
}

#[tokio::test]
async fn a_replica_that_goes_down_is_named_and_takes_its_service_along() {
    let script = Script::default().service(
        "web-2",
        ServiceScript {
            exit: Some(ExitScript {
                after: ms(50),
                code: 3,
                oom: false,
            }),
            ..ServiceScript::default()
        },
    );
    let ended = spec(
        r#"
services: { web: { image: web, deploy: { replicas: 3 }, ports: [80] } }
phases:
  main: [{ wait: { for: 30s } }]
"#,
    )
    .script(script)
    .run()
    .await;
    assert_eq!(ended.outcome(), Outcome::Failed);
    let reason = ended.reason("main/0");
    assert!(
        reason.contains("service web-2 exited unexpectedly"),
        "{reason}"
    );
}

#[tokio::test]
async fn no_replica_means_that_a_step_starts_the_service() {
    let ended = spec(
        r#"
services: { web: { image: web, scale: "${{ 2 - 2 }}" } }
phases:
  main:
    - container: { start: web }
    - expect: [services.web.replicas.size() == 1, "services.web.host == 'web'"]
"#,
    )
    .run()
    .await;
    ended.passed();
    let starts = ended.calls.iter().filter(|made| *made == "start web");
    assert_eq!(starts.count(), 1);
}
