//! A second engine with directories and a socket of its own, to be stopped and started under a stack.

use crate::image;
use bollard::{API_DEFAULT_VERSION, Docker};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A running `dockerd`.
pub struct Daemon {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one and gives it the tests' image; `None` (with a note) where there is no `dockerd` or no right to run one.
    pub async fn start() -> Option<Daemon> {
        let root = std::fs::metadata("/proc/self").is_ok_and(|meta| {
            use std::os::unix::fs::MetadataExt;
            meta.uid() == 0
        });
        let program = Command::new("dockerd")
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .await;
        let apart = Command::new("unshare")
            .args(["--net", "true"])
            .status()
            .await;
        let can =
            |tried: std::io::Result<std::process::ExitStatus>| tried.is_ok_and(|s| s.success());
        if !root || !can(program) || !can(apart) {
            println!("no second engine here: `dockerd` or `unshare` is missing, or root is needed");
            return None;
        }
        let mut daemon = Daemon {
            dir: tempfile::Builder::new()
                .prefix("phx")
                .tempdir_in("/tmp")
                .unwrap(),
            child: None,
        };
        daemon.run().await;
        image::provide(&daemon.client()).await.unwrap();
        Some(daemon)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.path("sock").display())
    }

    fn client(&self) -> Docker {
        Docker::connect_with_unix(&self.host(), 30, API_DEFAULT_VERSION).unwrap()
    }

    /// Names of the containers that it has.
    #[allow(dead_code)] // of the fleet's tests, which include this file
    pub async fn containers(&self) -> Vec<String> {
        let options = bollard::query_parameters::ListContainersOptionsBuilder::default();
        let docker = self.client();
        let listed = docker.list_containers(Some(options.all(true).build()));
        let listed = listed.await.unwrap().into_iter();
        listed
            .map(|found| found.names.unwrap_or_default().join(" "))
            .collect()
    }

    /// Starts it (again) and waits until it answers.
    pub async fn run(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        // The machine's own configuration is not this engine's.
        std::fs::write(self.path("daemon.json"), "{}").unwrap();
        // In a network namespace of its own: with `--bridge=none` an engine removes the `docker0` that it finds,
        // and that would be the machine's.
        let child = Command::new("unshare")
            .args(["--net", "--", "dockerd"])
            .arg("--config-file")
            .arg(self.path("daemon.json"))
            .arg("--host")
            .arg(self.host())
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=vfs",
                "--shutdown-timeout=2",
            ])
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
        for _ in 0..600 {
            if let Ok(docker) = Docker::connect_with_unix(&self.host(), 5, API_DEFAULT_VERSION)
                && docker.ping().await.is_ok()
            {
                return;
            }
            if let Some(status) = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten())
            {
                let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
                panic!("dockerd ended ({status}): {log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("dockerd does not answer");
    }

    /// Stops it as a service manager would, and waits.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = child.id() {
            let _ = Command::new("kill")
                .arg("-TERM")
                .arg(pid.to_string())
                .status()
                .await;
        }
        if tokio::time::timeout(Duration::from_secs(30), child.wait())
            .await
            .is_err()
        {
            let _ = child.kill().await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // An engine mounts its data directory onto itself and may leave it so; a mounted directory can't be removed.
        for mounted in ["data", "exec"] {
            let _ = std::process::Command::new("umount")
                .args(["-R", "-l"])
                .arg(self.path(mounted))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}
