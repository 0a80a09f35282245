//! The one place with unsafe code: `fork`, what a service's process does between `fork` and `exec`, and a warden's mark in its own environment.

use crate::limits;
use nix::libc::c_char;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::ForkResult;
use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the fork server begin in a session of its own, and with every signal blocked that can be; wardens inherit that. Signals meant for the
/// agent reach its group (Ctrl-C) and its unit (SIGTERM): a warden that was hit before it could block them would be taken for a broken machine.
#[allow(unsafe_code)]
pub fn out_of_reach(command: &mut Command) {
    let prepare = || -> io::Result<()> {
        nix::unistd::setsid()?;
        SigSet::all().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: as below, two system calls.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Lets the command begin in a session of its own (no terminal, a group that can be signalled as a whole),
/// with no signal blocked (the warden's are), with the usual limit of open files rather than ours, and die with its parent, should that be killed before it can end its children.
#[allow(unsafe_code)]
pub fn own_session_tied_to_parent(command: &mut Command, open_files: Option<u64>) {
    let parent = nix::unistd::getpid();
    let prepare = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        SigSet::empty().thread_set_mask()?;
        if let Some(soft) = open_files {
            limits::set_open_files(soft)?;
        }
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            // The parent died before the tie was made.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are six system calls
    // and compares; nothing allocates, locks or unwinds.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Forks this process, which must have a single thread.
#[allow(unsafe_code)]
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the fork server has one thread, so that no lock can be held by a thread that the child doesn't have.
    unsafe { nix::unistd::fork() }
}

/// Replaces this process's environment block, as others read it in `/proc/PID/environ`, by `variables` (`NAME=value`, each ended by a zero byte).
/// The block must have begun with one variable that is at least as long: a process can't make its block longer.
#[allow(unsafe_code)]
pub fn replace_environment(variables: &[u8]) -> io::Result<()> {
    unsafe extern "C" {
        /// The C library's list of this process's environment.
        static environ: *const *mut c_char;
    }
    // SAFETY: the process has one thread, and nothing of it reads or changes the environment at the same time. `environ` is the list that
    // `exec` made, or null; its first entry is a C string in this process's own writable stack, of which no more is written than it holds.
    unsafe {
        let first = if environ.is_null() {
            std::ptr::null_mut()
        } else {
            *environ
        };
        let room = if first.is_null() {
            0
        } else {
            CStr::from_ptr(first).count_bytes()
        };
        if variables.len() > room {
            let what = format!(
                "a mark of {} bytes is longer than the {room} bytes there are for it",
                variables.len()
            );
            return Err(io::Error::other(what));
        }
        std::ptr::write_bytes(first, 0, room);
        std::ptr::copy_nonoverlapping(variables.as_ptr(), first.cast::<u8>(), variables.len());
    }
    Ok(())
}
