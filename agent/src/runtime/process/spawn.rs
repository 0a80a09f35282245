//! The one place with unsafe code: what a warden and a service's process do between `fork` and `exec`.

use crate::limits;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets a warden begin in a session of its own, and with every signal blocked that can be. Signals meant for the agent reach its
/// group (Ctrl-C) and its unit (SIGTERM): a warden that was hit before it could block them would be taken for a broken machine.
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
