//! The engine calls of a cell, made directly, in the same order as the runtime makes them.

use super::{Round, Took, image};
use bollard::Docker;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ExecConfig, HostConfig, Ipam, IpamConfig, NetworkCreateRequest,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use futures::StreamExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

pub async fn round(docker: &Docker, cells: usize, at_once: usize) -> Round {
    let began = Instant::now();
    let cells = futures::stream::iter((0..cells).map(|_| cell(docker)))
        .buffer_unordered(at_once)
        .collect()
        .await;
    Round {
        cells,
        wall: began.elapsed(),
    }
}

async fn cell(docker: &Docker) -> Took {
    let began = Instant::now();
    let name = network(docker).await;
    container(docker, &name, &name).await;
    exec_true(docker, &name).await;
    let outcome = began.elapsed();
    remove_container(docker, &name).await;
    docker.remove_network(&name).await.unwrap();
    Took {
        outcome,
        whole: began.elapsed(),
    }
}

/// Creates a network of the same size as a cell's, with a unique name.
pub async fn network(docker: &Docker) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 4096;
    let name = format!("phalanx-bench-{}", uuid::Uuid::new_v4().simple());
    let config = IpamConfig {
        subnet: Some(format!("10.225.{}.{}/28", number / 16, number % 16 * 16)),
        ..IpamConfig::default()
    };
    let network = NetworkCreateRequest {
        name: name.clone(),
        ipam: Some(Ipam {
            config: Some(vec![config]),
            ..Ipam::default()
        }),
        ..NetworkCreateRequest::default()
    };
    docker.create_network(network).await.unwrap();
    name
}

/// Creates a container in a network and starts it.
pub async fn container(docker: &Docker, network: &str, name: &str) {
    let body = ContainerCreateBody {
        image: Some(image::NAME.to_owned()),
        cmd: Some(image::COMMAND.map(str::to_owned).to_vec()),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(name, None).await.unwrap();
}

/// Removes a container at once, as the runtime does.
pub async fn remove_container(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::default();
    let options = options.force(true).v(true).build();
    docker.remove_container(name, Some(options)).await.unwrap();
}

async fn exec_true(docker: &Docker, container: &str) {
    let exec = ExecConfig {
        cmd: Some(vec!["true".to_owned()]),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(container, exec).await.unwrap().id;
    let started = docker.start_exec(&exec, None::<StartExecOptions>).await;
    if let StartExecResults::Attached { mut output, .. } = started.unwrap() {
        while output.next().await.is_some() {}
    }
    assert_eq!(docker.inspect_exec(&exec).await.unwrap().exit_code, Some(0));
}
