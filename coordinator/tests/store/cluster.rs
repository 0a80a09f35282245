//! A PostgreSQL server of this test program's own, on a socket in a temporary directory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running server, which ends with this value, and also if the test program is killed.
pub struct Cluster {
    place: tempfile::TempDir,
    bin: PathBuf,
    server: Child,
    databases: AtomicU32,
}

/// Returns the directory with the server's programs, of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((number, bin))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin)
}

/// Returns whether a server can be started on this machine.
pub fn is_installed() -> bool {
    programs().is_some()
}

/// PostgreSQL refuses to run as root: it runs as the user that its package has made then.
fn as_own_user(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(program);
    command
}

fn done(what: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{what}: {}: {said}", output.status)),
    }
}

impl Cluster {
    /// Starts a server. The error says what the machine lacks.
    pub fn start() -> Result<Cluster, String> {
        let bin =
            programs().ok_or("PostgreSQL's server isn't installed (apt-get install postgresql)")?;
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let permit = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        permit(place.path()).map_err(|error| error.to_string())?;
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres").ok().flatten();
            let user = user.ok_or("there is no user postgres")?;
            chown(
                place.path(),
                Some(user.uid.as_raw()),
                Some(user.gid.as_raw()),
            )
            .map_err(|error| error.to_string())?;
        }
        let data = place.path().join("data");
        let mut init = as_own_user(&bin.join("initdb"));
        init.args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        done(
            "initdb",
            init.arg("--pgdata").arg(&data).current_dir("/").output(),
        )?;
        let server = serve(&bin, &data, place.path())?;
        let cluster = Cluster {
            place,
            bin,
            server,
            databases: AtomicU32::new(0),
        };
        cluster.wait()?;
        Ok(cluster)
    }

    /// Returns the URL of a new, empty database.
    pub fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        let socket = self.place.path().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }

    /// Runs SQL in a database, and returns what it prints.
    pub fn sql(&self, database: &str, text: &str) -> String {
        self.try_sql(database, text)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_sql(&self, database: &str, text: &str) -> Result<String, String> {
        done("psql", self.psql(database, text).output())
    }

    /// Returns a command that runs SQL in a database.
    pub fn psql(&self, database: &str, text: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--username=postgres",
        ]);
        psql.arg("--host").arg(self.place.path());
        psql.args(["--command", text, database])
            .stdin(Stdio::null());
        psql
    }

    fn wait(&self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.try_sql("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Kills the server as a crash would, and starts it again.
    pub fn crash(&mut self) {
        let pid = self.place.path().join("data/postmaster.pid");
        let pid = fs::read_to_string(&pid).unwrap();
        let pid: i32 = pid.lines().next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGQUIT).unwrap();
        self.server.wait().unwrap();
        let data = self.place.path().join("data");
        self.server = serve(&self.bin, &data, self.place.path()).unwrap();
        self.wait().unwrap();
    }
}

/// What the shell does. A command in the background has no standard input of its own, so that is kept under another number.
const SHELL: &str = r#"exec 3<&0; "$0" "$@" & server=$!; (read _ <&3; kill -QUIT $server) & reader=$!; wait $server; kill $reader"#;

/// Starts the server under a shell that holds on to our end of a pipe: when this process is gone, the server ends.
fn serve(bin: &Path, data: &Path, socket: &Path) -> Result<Child, String> {
    let mut shell = as_own_user(Path::new("/bin/sh"));
    shell.args(["-c", SHELL]);
    shell.arg(bin.join("postgres")).arg("-D").arg(data);
    shell.args([
        "-c",
        "listen_addresses=",
        "-c",
        "max_connections=200",
        "-c",
        "shared_buffers=32MB",
    ]);
    shell
        .arg("-c")
        .arg(format!("unix_socket_directories={}", socket.display()));
    let log = fs::File::create(socket.join("log")).map_err(|error| error.to_string())?;
    let both = log.try_clone().map_err(|error| error.to_string())?;
    let shell = shell
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(both)
        .current_dir("/");
    shell
        .spawn()
        .map_err(|error| format!("the server: {error}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.server.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.server.wait();
    }
}
