//! The benchmark's image: a static busybox as its file system, so no registry is needed.

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;

/// Name of the image.
pub const NAME: &str = "phalanx-bench/busybox:1";
/// Command of its containers.
pub const COMMAND: [&str; 2] = ["sleep", "1000"];

/// Builds the image unless the engine has it.
pub async fn provide(docker: &Docker) {
    if docker.inspect_image(NAME).await.is_ok() {
        return;
    }
    let options = CreateImageOptionsBuilder::default();
    let options = options
        .from_src("-")
        .repo(&format!("docker.io/{NAME}"))
        .build();
    let body = bollard::body_full(file_system().unwrap().into());
    let made: Vec<_> = docker
        .create_image(Some(options), Some(body), None)
        .collect()
        .await;
    for line in made {
        line.unwrap();
    }
}

fn file_system() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_path_with_name("/bin/busybox", "bin/busybox")
        .expect("/bin/busybox: apt-get install busybox-static");
    for name in ["sleep", "true"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    archive.into_inner()
}
