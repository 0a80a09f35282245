use super::*;

fn follower(on_interrupt: OnInterrupt) -> Follower {
    Follower::new(RunId::from("r"), on_interrupt)
}

fn said(effects: &[Effect]) -> String {
    let lines = effects.iter().filter_map(|effect| match effect {
        Effect::Say(line) => Some(line.text.as_str()),
        _ => None,
    });
    lines.collect()
}

#[test]
fn ctrl_c_cancels_then_forces_then_leaves() {
    let mut follower = follower(OnInterrupt::Cancel);
    let first = follower.handle(&Input::Interrupt(Stop::Interrupt));
    assert!(matches!(
        first.as_slice(),
        [Effect::Say(_), Effect::Cancel { force: false, .. }]
    ));
    let second = follower.handle(&Input::Interrupt(Stop::Interrupt));
    assert!(matches!(
        second.as_slice(),
        [Effect::Say(_), Effect::Cancel { force: true, .. }]
    ));
    let third = follower.handle(&Input::Interrupt(Stop::Interrupt));
    assert!(matches!(
        third.as_slice(),
        [Effect::Say(_), Effect::Leave(Left::Interrupted)]
    ));
    assert!(said(&third).contains("left at once"));
}

#[test]
fn ctrl_c_on_a_run_of_somebody_else_only_leaves() {
    let mut follower = follower(OnInterrupt::Leave);
    let effects = follower.handle(&Input::Interrupt(Stop::Interrupt));
    assert!(matches!(
        effects.as_slice(),
        [Effect::Say(_), Effect::Leave(Left::Interrupted)]
    ));
    assert!(said(&effects).contains("phalanx watch r"));
}

#[test]
fn a_broken_stream_is_told_and_a_lost_one_ends_it() {
    let mut follower = follower(OnInterrupt::Cancel);
    assert!(said(&follower.handle(&Input::Broken("reset".to_owned()))).contains("reset"));
    let effects = follower.handle(&Input::Ended(Some(CliError::errored("gone"))));
    assert!(matches!(effects.as_slice(), [Effect::Leave(Left::Lost(_))]));
}

#[test]
fn a_signal_of_another_kind_is_not_called_ctrl_c() {
    let mut follower = follower(OnInterrupt::Cancel);
    let effects = follower.handle(&Input::Interrupt(Stop::Terminate));
    assert!(said(&effects).contains("SIGTERM"), "{effects:?}");
    assert!(!said(&effects).contains("Ctrl-C"), "{effects:?}");
    let by = Stop::Terminate;
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Cancel { by: known, .. } if *known == by))
    );
}
