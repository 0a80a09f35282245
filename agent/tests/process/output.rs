//! Output: complete, in order, with back-pressure, and told before the exit.

use crate::bench::{BOUND, Bench, Service, shell};
use phalanx_shared::event::LogStream;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_arrive_complete_and_in_order_before_the_exit() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    // 50 MB on stdout, 6.9 MB on stderr at the same time.
    let script = "seq 1 1000000 >&2 & seq 1 6388888; wait";
    let mut service = Service::create(&stack, &shell("noisy", script)).await;
    let began = Instant::now();
    service.member.start().await.unwrap();
    let mut next = [Numbers::default(), Numbers::default()];
    let exits = service.member.exits();
    loop {
        // The channel outlives the service: what was sent before the exit is in it when the exit is seen.
        let exited = exits.borrow().is_some();
        match service.frames.try_recv() {
            Ok((_, stream, bytes)) => next[usize::from(stream == LogStream::Stderr)].check(&bytes),
            Err(_) if exited => break,
            Err(_) => tokio::task::yield_now().await,
        }
        assert!(began.elapsed() < BOUND);
    }
    assert_eq!((next[0].last, next[1].last), (6_388_888, 1_000_000));
    assert_eq!(next[0].bytes, 50_000_000);
    let lines = f64::from(7_388_888) / began.elapsed().as_secs_f64();
    eprintln!("{lines:.0} lines/s");
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_slows_the_service_and_loses_nothing() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let script = "seq 1 1000000; echo done > finished";
    let mut service = Service::start(&stack, &shell("noisy", script)).await;
    let mut numbers = Numbers::default();
    let finished = bench.place.path().join("finished");
    let (_, _, bytes) = service.frames.recv().await.unwrap();
    numbers.check(&bytes);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // 64 frames and the pipe are less than 6.9 MB.
    assert!(!finished.exists(), "it must wait for us");
    assert!(service.member.exits().borrow().is_none());
    while numbers.last < 1_000_000 {
        let (_, _, bytes) = service.frames.recv().await.unwrap();
        numbers.check(&bytes);
    }
    assert_eq!(service.exit().await.code, 0);
    assert!(finished.exists());
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_and_last_words_without_a_newline_are_there() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let service = Service::start(
        &stack,
        &shell("curt", "printf a; printf b >&2; printf c; exit 1"),
    )
    .await;
    let mut text: Vec<char> = service.rest().await.chars().collect();
    text.sort_unstable();
    assert_eq!(text, ['a', 'b', 'c']);
    stack.close(Duration::ZERO, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_holds_the_pipe_does_not_keep_the_exit_back() {
    let bench = Bench::new();
    let stack = bench.stack().await;
    let service = Service::start(&stack, &shell("d", "setsid sleep 1000 & echo bye")).await;
    assert_eq!(service.rest().await, "bye\n");
    stack.close(Duration::ZERO, None).await;
}

/// Checks that bytes are the lines `1`, `2`, `3` …, however they are cut.
#[derive(Default)]
struct Numbers {
    last: u64,
    cut: String,
    bytes: usize,
}

impl Numbers {
    fn check(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.cut.push_str(std::str::from_utf8(bytes).unwrap());
        let text = std::mem::take(&mut self.cut);
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        for line in text[..whole].lines() {
            self.last += 1;
            assert_eq!(line.parse(), Ok(self.last));
        }
        self.cut = text[whole..].to_owned();
    }
}
