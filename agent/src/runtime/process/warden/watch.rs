//! Waits for the end of the service, for the end of the agent, or for an order, and then kills everything below.

use crate::clock::Deadline;
use crate::procfs;
use crate::runtime::process::wire::{Ending, Order};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// Read ends of the service's pipes, used after the agent is gone: a kept service must not die of a broken pipe.
pub struct Outputs {
    pipes: Vec<File>,
}

impl Outputs {
    /// Opens the standard streams for reading, as far as they are pipes.
    pub fn open() -> Outputs {
        let pipes = ["/proc/self/fd/1", "/proc/self/fd/2"]
            .iter()
            .filter(|path| {
                std::fs::read_link(path)
                    .is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"))
            })
            .filter_map(|path| {
                use std::os::unix::fs::OpenOptionsExt;
                OpenOptions::new()
                    .read(true)
                    .custom_flags(nix::libc::O_NONBLOCK)
                    .open(path)
                    .ok()
            })
            .collect();
        Outputs { pipes }
    }

    fn discard(&mut self) {
        let mut buffer = [0u8; 65536];
        self.pipes.retain_mut(|pipe| match pipe.read(&mut buffer) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        });
    }
}

/// State of a warden.
pub struct Warden {
    service: Pid,
    /// Exit status of the service's first process, once it was reaped. From then on its pid and group may be reused.
    exited: Option<ExitStatus>,
    keep_until: Option<Deadline>,
    outputs: Outputs,
}

impl Warden {
    /// Creates the state for a service that was just started.
    pub fn new(service: Pid, outputs: Outputs) -> Warden {
        Warden {
            service,
            exited: None,
            keep_until: None,
            outputs,
        }
    }

    /// Waits for the end of the service, for the end of the agent, or for an order, then ends everything and returns
    /// how it ended.
    pub fn watch(
        mut self,
        mut orders: BufReader<UnixStream>,
        signals: &SignalFd,
    ) -> io::Result<Ending> {
        orders.get_ref().set_nonblocking(true)?;
        let mut line = Vec::new();
        let mut agent_gone = false;
        loop {
            self.reap_dead();
            if self.exited.is_some() || self.keep_is_over(agent_gone) {
                return Ok(self.end_all());
            }
            self.sleep_until_something_happens(orders.get_ref().as_fd(), signals, agent_gone);
            while let Ok(Some(signal)) = signals.read_signal() {
                if signal.ssi_signo != Signal::SIGCHLD as u32 {
                    return Ok(self.end_all());
                }
            }
            while !agent_gone {
                match orders.read_until(b'\n', &mut line) {
                    Ok(0) => agent_gone = true,
                    Ok(_) if line.ends_with(b"\n") => {
                        let order = serde_json::from_slice(&line);
                        line.clear();
                        if let Ok(Order::Kill) = order {
                            return Ok(self.end_all());
                        }
                        if let Ok(order) = order {
                            self.obey(order);
                        }
                    }
                    Ok(_) => agent_gone = true, // An incomplete line, then the end.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => agent_gone = true,
                }
            }
            if agent_gone {
                self.outputs.discard();
            }
        }
    }

    /// Returns whether everything must end: the agent is gone and no keep time is left.
    fn keep_is_over(&self, agent_gone: bool) -> bool {
        let over = self.keep_until.is_none_or(|until| until.is_over());
        agent_gone && over
    }

    fn sleep_until_something_happens(
        &self,
        control: BorrowedFd<'_>,
        signals: &SignalFd,
        agent_gone: bool,
    ) {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let mut timeout = PollTimeout::NONE;
        if agent_gone {
            fds.extend(
                self.outputs
                    .pipes
                    .iter()
                    .map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)),
            );
            if let Some(until) = self.keep_until {
                let left = until.left().saturating_add(Duration::from_millis(1));
                timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            }
        } else {
            fds.push(PollFd::new(control, PollFlags::POLLIN));
        }
        // An interrupted call is treated like an event: the loop checks everything again.
        let _ = poll(&mut fds, timeout);
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Signal(number) => {
                if let Ok(signal) = Signal::try_from(number) {
                    let _ = killpg(self.service, signal);
                }
            }
            Order::Pause => self.signal_everything(rustix::process::Signal::STOP),
            Order::Unpause => self.signal_everything(rustix::process::Signal::CONT),
            Order::Keep(ms) => {
                self.keep_until = Some(Deadline::within(Duration::from_millis(ms)));
            }
            Order::Kill | Order::Start(_) => {}
        }
    }

    /// Signals the whole group at once, then the processes that left it, each pinned first.
    fn signal_everything(&self, signal: rustix::process::Signal) {
        if let Ok(number) = Signal::try_from(signal.as_raw()) {
            let _ = killpg(self.service, number);
        }
        for process in procfs::below(&procfs::processes(), own_pid()) {
            if process.group != self.service.as_raw()
                && let Some(pinned) = procfs::open(process)
            {
                let _ = pinned.signal(signal);
            }
        }
    }

    /// Reaps what has already exited: the service's first process and adopted orphans.
    fn reap_dead(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                return;
            }
            self.note(status);
        }
    }

    fn note(&mut self, status: WaitStatus) {
        if status.pid() == Some(self.service) {
            self.exited = match status {
                WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw((code & 0xff) << 8)),
                WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::from_raw(signal as i32)),
                _ => self.exited,
            };
        }
    }

    /// Kills everything below, generation by generation.
    ///
    /// Only the warden's own children are signalled: a child's pid can't be reused before the warden reaps it. A dying
    /// process leaves its children to the warden (the subreaper) before it can be reaped. So each return of `waitpid`
    /// is followed by a new look at the children, and `ECHILD` means that nothing lives any more, however fast it
    /// forked.
    fn end_all(mut self) -> Ending {
        if self.exited.is_none() {
            let _ = killpg(self.service, Signal::SIGKILL);
        }
        let mut how = Some(WaitPidFlag::WNOHANG);
        loop {
            match waitpid(None, how) {
                // Happens only at first: most commands leave no process behind, and then there is nothing to look for.
                Ok(WaitStatus::StillAlive) => {}
                Ok(status) => {
                    self.note(status);
                    self.reap_dead();
                }
                Err(Errno::EINTR) => continue,
                Err(_) => return self.ending(),
            }
            how = None;
            for child in procfs::children(own_pid()) {
                let _ = nix::sys::signal::kill(Pid::from_raw(child), Signal::SIGKILL);
            }
        }
    }

    fn ending(&self) -> Ending {
        let status = self
            .exited
            .unwrap_or(ExitStatus::from_raw(Signal::SIGKILL as i32));
        let signal = status.signal();
        Ending {
            code: i64::from(status.code().unwrap_or(128 + signal.unwrap_or(0))),
            signal,
            peak_kib: getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.max_rss()),
        }
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}
