//! A Git repository in the test, served over HTTP by Git's own `http-backend`.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A served repository. Its branch is the one that was current when it was opened.
pub struct Repository {
    root: Arc<TempDir>,
    address: SocketAddr,
}

impl Repository {
    /// Makes a repository with this default branch, and serves it.
    pub async fn open(branch: &str) -> Repository {
        let root = Arc::new(TempDir::new().unwrap());
        let tree = root.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        git(
            &tree,
            &["init", "--quiet", &format!("--initial-branch={branch}")],
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(backend)
            .with_state(Arc::clone(&root));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Repository { root, address }
    }

    pub fn url(&self) -> String {
        // A copy whose HEAD stays at the default branch.
        format!("http://{}/served.git", self.address)
    }

    /// Writes a file and commits it to the current branch.
    pub fn commit(&self, path: &str, text: &str) {
        let file = self.tree().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        git(&self.tree(), &["add", "--all"]);
        git(&self.tree(), &["commit", "--quiet", "-m", path]);
        self.publish();
    }

    /// Goes on with a new branch.
    pub fn branch(&self, name: &str) {
        git(&self.tree(), &["checkout", "--quiet", "-b", name]);
        self.publish();
    }

    fn tree(&self) -> PathBuf {
        self.root.path().join("tree")
    }

    fn publish(&self) {
        let served = self.root.path().join("served.git");
        match served.exists() {
            false => git(
                self.root.path(),
                &["clone", "--quiet", "--bare", "tree", "served.git"],
            ),
            true => git(
                &self.tree(),
                &["push", "--quiet", "--all", &served.display().to_string()],
            ),
        }
    }
}

/// Git without the settings of this machine.
fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "test"),
        ("GIT_AUTHOR_EMAIL", "test@localhost"),
        ("GIT_COMMITTER_NAME", "test"),
        ("GIT_COMMITTER_EMAIL", "test@localhost"),
    ] {
        command.env(name, value);
    }
    command
}

fn git(directory: &Path, arguments: &[&str]) {
    let done = command(directory).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {arguments:?}: {said}");
}

/// Answers a request as the CGI program does.
async fn backend(
    State(root): State<Arc<TempDir>>,
    (method, uri): (Method, Uri),
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let answer = tokio::task::spawn_blocking(move || {
        let header = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let mut child = command(root.path())
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", root.path())
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", method.as_str())
            .env("PATH_INFO", uri.path())
            .env("QUERY_STRING", uri.query().unwrap_or_default())
            .env("CONTENT_TYPE", header("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
            .env("GIT_PROTOCOL", header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A request is a few lines, less than a pipe holds.
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &body).unwrap();
        child.wait_with_output().unwrap().stdout
    });
    let answer = answer.await.unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let status = field("Status:").map_or("200", |status| &status[..3]);
    Response::builder()
        .status(StatusCode::from_bytes(status.as_bytes()).unwrap())
        .header(
            header::CONTENT_TYPE,
            field("Content-Type:").unwrap_or_default(),
        )
        .body(Body::from(answer[end + 4..].to_vec()))
        .unwrap()
}
