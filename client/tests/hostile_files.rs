//! Hostile files against the real program: `phalanx validate` reports what is wrong, exits with code 2, and uses little
//! memory.
//!
//! Memory is the kernel's peak of the child process (`ru_maxrss`), time is its CPU time (`ru_utime` + `ru_stime`), so a
//! busy machine changes neither much. The limits on time are for a debug build; run with `--release` to measure what
//! users have. This is a single test in its own file, because the kernel counts the children of the whole process.
#![allow(clippy::unwrap_used)]

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Maximum memory for a file, in release and debug builds.
const MOST_MIB: i64 = 256;
/// Maximum CPU time in a debug build, which takes several times as long as a release build.
const MOST_SECONDS: f64 = 15.0;
/// Guards against hanging; far beyond what the limit above allows on a busy machine.
const HANG: Duration = Duration::from_secs(300);

/// Writes a hostile file piece by piece instead of holding it in memory: the child's peak includes the memory of this
/// process at the fork.
struct Script {
    name: &'static str,
    /// Words that the message must contain.
    said: &'static [&'static str],
    write: fn(&mut dyn Write) -> std::io::Result<()>,
}

fn times(out: &mut dyn Write, text: &str, times: usize) -> std::io::Result<()> {
    (0..times).try_for_each(|_| out.write_all(text.as_bytes()))
}

fn numbered(out: &mut dyn Write, count: usize, line: fn(usize) -> String) -> std::io::Result<()> {
    (0..count).try_for_each(|n| out.write_all(line(n).as_bytes()))
}

const SCRIPTS: &[Script] = &[
    Script {
        name: "empty",
        said: &["the file is empty"],
        write: |_| Ok(()),
    },
    Script {
        name: "only comments",
        said: &["the file is empty"],
        write: |out| times(out, "# nothing\n", 100_000),
    },
    Script {
        name: "not UTF-8",
        said: &["it is not UTF-8: line 2 (byte 8)"],
        write: |out| out.write_all(b"name: x\n\xff\xfe\n"),
    },
    Script {
        name: "NUL bytes",
        said: &["this is not YAML"],
        write: |out| times(out, "\0", 1_000_000),
    },
    Script {
        name: "a million percent signs",
        said: &["this is not YAML"],
        write: |out| times(out, "%", 1_000_000),
    },
    Script {
        name: "300,000 anchors of one name",
        said: &["this is not YAML"],
        write: |out| times(out, "&a ", 300_000),
    },
    Script {
        name: "a scalar of 20 MB",
        said: &["bigger than 4 MiB", "split it with `include`"],
        write: |out| {
            out.write_all(b"name: ")?;
            times(out, "xxxxxxxxxxxxxxxxxxxx", 1_000_000)
        },
    },
    Script {
        name: "a scalar just below the limit",
        said: &["phases"],
        write: |out| {
            out.write_all(b"name: ")?;
            times(out, "xxxxxxxxxxxxxxxxxxxx", 200_000)
        },
    },
    Script {
        name: "20,000 levels of maps",
        said: &["too many levels of lists and maps"],
        write: |out| times(out, "{a: ", 20_000),
    },
    Script {
        name: "20,000 levels of lists",
        said: &["too many levels of lists and maps"],
        write: |out| times(out, "[", 20_000),
    },
    Script {
        name: "20,000 levels of dashes",
        said: &["more than 128 levels of lists and maps"],
        write: |out| times(out, "- ", 20_000),
    },
    Script {
        name: "a million levels of lists",
        said: &["too many levels of lists and maps"],
        write: |out| times(out, "[", 1_000_000),
    },
    Script {
        name: "20,000 brackets in an expression",
        said: &["expect"],
        write: |out| {
            out.write_all(b"phases: { p: [{ expect: \"")?;
            times(out, "(", 20_000)?;
            out.write_all(b"1")?;
            times(out, ")", 20_000)?;
            out.write_all(b"\" }] }\n")
        },
    },
    Script {
        name: "an anchor bomb",
        said: &["aliases put in", "aliases of aliases multiply"],
        write: |out| {
            out.write_all(b"a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")?;
            (1..30).try_for_each(|n| {
                let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
                writeln!(out, "a{n}: &a{n} [{aliases}]")
            })
        },
    },
    Script {
        name: "a long text, repeated",
        said: &["more than", "bytes of text, aliases put in"],
        write: |out| {
            out.write_all(b"text: &text ")?;
            times(out, "xxxxxxxxxxxxxxxxxxxx", 50_000)?;
            out.write_all(b"\nall:\n")?;
            times(out, "- *text\n", 100_000)
        },
    },
    Script {
        name: "50,000 anchors",
        said: &["unknown"],
        write: |out| numbered(out, 50_000, |n| format!("a{n}: &a{n} [1]\n")),
    },
    Script {
        name: "an alias of itself",
        said: &["an alias inside the value that it repeats"],
        write: |out| out.write_all(b"a: &a [*a]\n"),
    },
    Script {
        name: "100,000 steps on one line",
        said: &["p"],
        write: |out| {
            out.write_all(b"phases: { p: [")?;
            times(out, "{ rum: x }, ", 100_000)?;
            out.write_all(b"] }\n")
        },
    },
    Script {
        name: "100,000 unknown keys",
        said: &["k0", "more"],
        write: |out| numbered(out, 100_000, |n| format!("k{n}: 1\n")),
    },
    Script {
        name: "one key 100,000 times",
        said: &["`k` is written twice", "more"],
        write: |out| times(out, "k: 1\n", 100_000),
    },
    Script {
        name: "a million quotes",
        said: &["error"],
        write: |out| times(out, "\"", 1_000_000),
    },
    Script {
        name: "100,000 open expressions",
        said: &["error"],
        write: |out| times(out, "x: ${{ ", 100_000),
    },
    Script {
        name: "defines that use two each, 2,000 deep",
        said: &["steps.a"],
        write: |out| {
            out.write_all(b"define:\n")?;
            numbered(out, 2_000, |n| {
                let next = n + 1;
                format!("  d{n}: {{ steps: [{{ use: d{next} }}, {{ use: d{next} }}] }}\n")
            })?;
            out.write_all(b"  d2000: { steps: [{ run: \"${{ steps.a.b }}\" }] }\n")?;
            out.write_all(b"phases: { p: [{ use: d0 }] }\n")
        },
    },
    Script {
        name: "services that extend each other, 5,000 deep",
        said: &["s5000"],
        write: |out| {
            out.write_all(b"phases: { p: [{ expect: true }] }\nservices:\n")?;
            numbered(out, 5_000, |n| {
                format!("  s{n}: {{ extends: s{} }}\n", n + 1)
            })?;
            out.write_all(b"  s5000: { imagine: x }\n")
        },
    },
    Script {
        name: "a file that includes itself",
        said: &["includ"],
        write: |out| out.write_all(b"include: [spec.yaml]\nphases: { p: [{ expect: true }] }\n"),
    },
];

#[test]
fn hostile_files_get_a_message_and_exit_code_2_within_little_memory() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("spec.yaml");
    for script in SCRIPTS {
        {
            let mut out = std::io::BufWriter::new(std::fs::File::create(&file).unwrap());
            (script.write)(&mut out).unwrap();
            out.flush().unwrap();
        }
        validate(place.path(), script.name, &file, script.said);
    }

    let fifo = place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = place.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (name, path, said) in [
        (
            "a directory",
            place.path().to_owned(),
            "it is a directory, not a file",
        ),
        ("a FIFO", fifo, "it is a FIFO, not a file"),
        (
            "a device without end",
            "/dev/zero".into(),
            "it is a device, not a file",
        ),
        ("a socket", socket, "can't read"),
        (
            "nothing",
            place.path().join("no.yaml"),
            "there is no such file",
        ),
    ] as [(&str, PathBuf, &str); 5]
    {
        validate(place.path(), name, &path, &[said]);
    }
}

fn validate(place: &Path, name: &str, path: &Path, said: &[&str]) {
    let (before, _) = children();
    let errors = place.join("errors");
    let mut child = Command::new(env!("CARGO_BIN_EXE_phalanx"))
        .args(["validate", path.to_str().unwrap()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait()));
    let status = end.recv_timeout(HANG).unwrap_or_else(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("{name}: no end after {HANG:?}");
    });
    let (after, peak_mib) = children();
    let stderr = std::fs::read_to_string(&errors).unwrap();
    let start: String = stderr.chars().take(2_000).collect();
    let seconds = after - before;
    println!("{seconds:>6.2} s, peak so far {peak_mib} MiB: {name}");
    assert_eq!(status.unwrap().code(), Some(2), "{name}: {start}");
    for words in said {
        assert!(stderr.contains(words), "{name}: no `{words}` in {start}");
    }
    assert!(!stderr.contains("panicked"), "{name}: {start}");
    assert!(
        stderr.len() < 4 << 20,
        "{name}: {} bytes of message",
        stderr.len()
    );
    assert!(peak_mib <= MOST_MIB, "{name} took {peak_mib} MiB");
    assert!(seconds <= MOST_SECONDS, "{name} computed for {seconds} s");
}

/// Returns the CPU time of all children so far, in seconds, and the peak memory of the largest, in MiB.
fn children() -> (f64, i64) {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let times = [usage.user_time(), usage.system_time()];
    let seconds = times
        .iter()
        .map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6);
    (seconds.sum(), usage.max_rss() / 1024)
}
