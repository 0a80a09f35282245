//! The tests' only image: a static busybox imported as a file system, so that no registry is needed.
//! Made on demand; `apt-get install busybox-static` puts the program where it is looked for.

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;
use std::path::Path;

/// Its name.
pub const BUSYBOX: &str = "phalanx-test/busybox:1";

/// Programs that tests call; links to busybox.
const PROGRAMS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "true", "false", "env", "id", "hostname", "ls", "mount", "grep",
    "head", "tail", "wc", "dd", "yes", "nc", "wget", "httpd", "ping", "ps", "touch", "mkdir", "rm",
    "cp", "mv", "stat", "df", "ulimit", "nslookup", "pwd", "tr", "kill", "ip", "date", "seq",
    "test", "printf", "sync", "chown", "chmod", "readlink", "sort", "uname", "free", "nproc",
    "expr", "awk", "sed", "cut", "trap", "md5sum", "mknod", "whoami", "xargs", "tee", "find", "od",
    "base64",
];

/// Makes the image unless the engine has it.
pub async fn provide(docker: &Docker) -> Result<(), String> {
    if docker.inspect_image(BUSYBOX).await.is_ok() {
        return Ok(());
    }
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        // In full, and the tag with it: Podman would take a short name for one of `localhost` and reads no other tag.
        .repo("docker.io/phalanx-test/busybox:1")
        // One line only: Podman would read a second one as part of the first.
        .changes(vec!["ENV FROM_IMAGE=yes".into()])
        .build();
    let body = bollard::body_full(file_system()?.into());
    let stream = docker.create_image(Some(options), Some(body), None);
    let mut stream = std::pin::pin!(stream);
    while let Some(line) = stream.next().await {
        line.map_err(|error| format!("importing {BUSYBOX}: {error}"))?;
    }
    Ok(())
}

fn file_system() -> Result<Vec<u8>, String> {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.exists())
        .ok_or("the tests' image needs a static busybox: apt-get install busybox-static")?;
    build(program).map_err(|error| format!("packing {}: {error}", program.display()))
}

fn build(program: &Path) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for directory in [
        "bin", "etc", "tmp", "proc", "sys", "dev", "root", "srv", "data",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        archive.append_data(&mut header, format!("{directory}/"), std::io::empty())?;
    }
    let files: [(&str, &str); 3] = [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/srv:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\napp:x:1000:\n"),
        ("srv/index.html", "served\n"),
    ];
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.append_path_with_name(program, "bin/busybox")?;
    for name in PROGRAMS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    archive.into_inner()
}
