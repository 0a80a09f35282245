//! Limits of this process: raises that of open files, forbids core files, gives child processes the original ones back,
//! and recognises errors that mean a resource is exhausted.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io;
use std::sync::OnceLock;

/// The soft limits that this program was started with and has changed since. Commands that it starts get them back.
static FIRST_OPEN_FILES: OnceLock<u64> = OnceLock::new();
static FIRST_CORE_BYTES: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit of open files to the hard limit: the usual soft limit exists for programs that use `select`.
/// If that fails, the limit stays as it is.
pub fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        let _ = FIRST_OPEN_FILES.set(soft);
    }
}

/// Lets this process leave no core file, which would hold secrets. If that fails, the limit stays as it is.
pub fn forbid_core_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CORE) else {
        return;
    };
    if setrlimit(Resource::RLIMIT_CORE, 0, hard).is_ok() {
        let _ = FIRST_CORE_BYTES.set(soft);
    }
}

/// Soft limits of a child process, where they differ from its parent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftLimits {
    open_files: Option<u64>,
    core_bytes: Option<u64>,
}

impl SoftLimits {
    /// Returns the limits that this program was started with.
    pub fn first() -> SoftLimits {
        SoftLimits {
            open_files: FIRST_OPEN_FILES.get().copied(),
            core_bytes: FIRST_CORE_BYTES.get().copied(),
        }
    }

    /// Sets them for this process. Makes at most four system calls, so it may be called between `fork` and `exec`.
    pub fn apply(&self) -> io::Result<()> {
        let both = [
            (Resource::RLIMIT_NOFILE, self.open_files),
            (Resource::RLIMIT_CORE, self.core_bytes),
        ];
        for (resource, soft) in both {
            if let Some(soft) = soft {
                let (_, hard) = getrlimit(resource)?;
                setrlimit(resource, soft.min(hard), hard)?;
            }
        }
        Ok(())
    }
}

/// Returns whether an error, or one of its sources, means that this process or the machine has run out of file
/// descriptors, processes or memory. Such an error says nothing about the system under test.
pub fn is_exhausted(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && has_nothing_left(error)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Like [`is_exhausted`], for an I/O error, such as one from starting a process.
pub fn has_nothing_left(error: &io::Error) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    let code = error.raw_os_error();
    // When a process is started, EAGAIN means the limit of processes; EAGAIN from a socket never gets here.
    let known = [EMFILE, ENFILE, ENOMEM, EAGAIN];
    if code.is_some_and(|code| known.contains(&code)) {
        return true;
    }
    // A wrapping error hides the code of the inner one.
    let inner = error.get_ref();
    inner.is_some_and(|inner| {
        let inner: &(dyn Error + 'static) = inner;
        is_exhausted(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_machine_is_found_below_other_errors() {
        let emfile = || io::Error::from_raw_os_error(nix::libc::EMFILE);
        assert!(is_exhausted(&emfile()));
        let wrapped = io::Error::other(io::Error::other(emfile()));
        assert!(is_exhausted(&wrapped));
        let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
        assert!(!is_exhausted(&refused));
        assert!(!is_exhausted(&io::Error::other("open files")));
    }
}
