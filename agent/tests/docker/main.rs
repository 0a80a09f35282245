//! The Docker runtime against a real engine. Without one every test is reported as ignored, by name;
//! with `PHALANX_TEST_ENGINE=required` that is a failure instead.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod daemon;
mod faults;
mod fields;
mod gather;
mod hooks;
mod image;
mod images;
mod lab;
mod life;
mod networks;
mod proxy;
mod registry;
mod repository;
#[path = "../cell/rig.rs"]
#[allow(dead_code, clippy::panic)]
mod rig;
mod snapshots;

use lab::Lab;
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A test: its name, and what it does.
pub type Case = (
    &'static str,
    fn(Arc<Lab>) -> Pin<Box<dyn Future<Output = ()> + Send>>,
);

/// Names a test function's case after the function.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub const CASES: &[$crate::Case] = &[$((stringify!($name), |lab| Box::pin($name(lab)))),*];
    };
}

/// A bound against hanging, on a machine that compiles and builds images at the same time.
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores: more at once only slow each other down into their limits.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let groups: &[(&str, &[Case])] = &[
        ("life", life::CASES),
        ("fields", fields::CASES),
        ("hooks", hooks::CASES),
        ("images", images::CASES),
        ("networks", networks::CASES),
        ("faults", faults::CASES),
        ("gather", gather::CASES),
        ("snapshots", snapshots::CASES),
    ];
    let lab = tokio.block_on(Lab::open());
    let trials = groups
        .iter()
        .flat_map(|(group, cases)| cases.iter().map(move |case| (group, case)))
        .map(|(group, (name, run))| {
            let name = format!("{group}::{name}");
            match &lab {
                Ok(lab) => {
                    let (lab, handle) = (lab.clone(), tokio.handle().clone());
                    let run = *run;
                    Trial::test(name, move || {
                        let _entered = handle.enter();
                        let task = handle.spawn(tokio::time::timeout(LIMIT, run(lab)));
                        match handle.block_on(task) {
                            Ok(Ok(())) => Ok(()),
                            Ok(Err(_)) => Err(Failed::from(format!("not done within {LIMIT:?}"))),
                            Err(panic) => Err(Failed::from(text(panic))),
                        }
                    })
                }
                Err(_) => Trial::test(name, || Ok(())).with_ignored_flag(true),
            }
        })
        .collect();
    let conclusion = match &lab {
        Err(why) if std::env::var("PHALANX_TEST_ENGINE").as_deref() == Ok("required") => {
            eprintln!("an engine is required and none can be used: {why}");
            std::process::exit(1);
        }
        Err(why) => {
            println!("ignored, since no engine can be used: {why}");
            libtest_mimic::run(&arguments, trials)
        }
        Ok(_) => libtest_mimic::run(&arguments, trials),
    };
    finish(&tokio, lab.ok(), &conclusion)
}

/// Nothing of ours may be left, whatever the tests did.
fn finish(tokio: &tokio::runtime::Runtime, lab: Option<Arc<Lab>>, conclusion: &Conclusion) {
    let left = lab
        .map(|lab| tokio.block_on(lab.close()))
        .unwrap_or_default();
    for object in &left {
        eprintln!("left behind: {object}");
    }
    if !left.is_empty() || conclusion.has_failed() {
        std::process::exit(101);
    }
}

fn text(panic: tokio::task::JoinError) -> String {
    match panic.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "panicked".to_owned()),
        Err(error) => error.to_string(),
    }
}
