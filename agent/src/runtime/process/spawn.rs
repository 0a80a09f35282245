//! The only module with unsafe code: `fork`, the setup of a service's process between `fork` and `exec`, and a warden's
//! mark in its own environment.

use crate::limits::SoftLimits;
use nix::libc::c_char;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::ForkResult;
use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Starts the fork server in its own session with every blockable signal blocked; wardens inherit both. Signals for the
/// agent reach its process group (Ctrl-C) and its unit (SIGTERM). If one hit a warden before the warden could block it,
/// the warden's death would look like a failure of the machine.
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

/// Starts the command in its own session (no terminal, and a group that can be signalled as a whole), with no signal
/// blocked (the warden's are) and with the original soft limits. It dies with its parent, in case the parent is
/// killed before it can end its children.
#[allow(unsafe_code)]
pub fn own_session_tied_to_parent(command: &mut Command, limits: SoftLimits) {
    let parent = nix::unistd::getpid();
    let prepare = move || -> io::Result<()> {
        nix::unistd::setsid()?;
        SigSet::empty().thread_set_mask()?;
        limits.apply()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            // The parent died before `PR_SET_PDEATHSIG` took effect.
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: these are eight system calls
    // and compares; nothing allocates, locks or unwinds.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Forks this process, which must be single-threaded.
#[allow(unsafe_code)]
pub fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the fork server has one thread, so that no lock can be held by a thread that the child doesn't have.
    unsafe { nix::unistd::fork() }
}

/// Replaces this process's environment block, which others read in `/proc/PID/environ`, with `variables` (`NAME=value`
/// entries, each terminated by a zero byte). The original block must begin with a variable that is at least as long: a
/// process can't extend its block.
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
