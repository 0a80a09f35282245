//! Images: pulled with credentials and again after failures, built in every way, and refused with a reason.

use crate::cases;
use crate::image::BUSYBOX;
use crate::lab::{Cell, Lab, Service, idle, script};
use crate::registry::{PASSWORD, Registry, USER};
use crate::repository::Repository;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use phalanx_agent::ahead::Preparing;
use phalanx_agent::cell_contract::Assignment;
use phalanx_agent::clock::SystemClock;
use phalanx_agent::link::actor::{self as link, Prefetcher};
use phalanx_agent::link::core::About;
use phalanx_agent::link::{CellSpawner, Coordinator};
use phalanx_agent::policy::{Guard, InForce};
use phalanx_agent::runtime::contract::{AttemptScope, Prepared, RuntimeError};
use phalanx_agent::runtime::docker::{Builder, DockerRuntime, DockerSettings};
use phalanx_shared::language::service::{
    Build, BuildSecret, ContextSource, FileSource, NamedContext, PullPolicy, ServiceConfig,
    SshAgent,
};
use phalanx_shared::outcome::Outcome;
use phalanx_shared::plan::{Resources, WantedImage};
use phalanx_shared::policy::{Allow, Rule, Rules};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

cases![
    a_pull_uses_the_users_login_and_tries_again,
    one_pull_serves_all_who_wait,
    an_image_that_was_fetched_beforehand_is_not_pulled_again,
    what_the_coordinator_forbids_is_not_pulled_ahead,
    a_credential_helper_is_asked,
    a_missing_image_is_an_error_with_its_name,
    a_pull_without_login_says_so,
    a_build_takes_context_arguments_and_target,
    the_classic_builder_takes_them_too,
    a_repository_is_built_from_its_default_branch_or_the_one_that_is_named,
    an_inline_dockerfile_needs_no_context,
    a_failing_build_shows_its_last_lines,
    buildkit_takes_mounts_secrets_agents_and_hosts,
    a_secret_that_the_build_doesnt_name_is_refused,
    a_long_build_says_what_it_does,
    what_needs_buildkit_is_refused_at_its_line_without_it,
    further_contexts_are_directories_images_and_other_services,
    the_classic_builder_takes_further_contexts_too,
    a_build_that_was_done_is_not_done_again,
    a_context_outside_the_workspace_is_refused,
    cells_that_build_different_images_under_one_name_get_their_own,
    no_intermediate_container_is_left_when_a_build_is_abandoned,
    buildkit_ends_a_build_that_is_abandoned,
];

fn pulls(image: String) -> ServiceConfig {
    ServiceConfig {
        image: Some(image),
        command: Some(vec!["/never-started".into()]),
        ..idle("s")
    }
}

/// A runtime whose Docker configuration is this text.
async fn with_config(
    lab: &Lab,
    dir: &tempfile::TempDir,
    config: &str,
) -> (Arc<DockerRuntime>, DockerSettings) {
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let settings = DockerSettings {
        docker_config: Some(dir.path().to_owned()),
        ready_networks: 0,
        ..lab.settings()
    };
    (
        DockerRuntime::connect(settings.clone()).await.unwrap(),
        settings,
    )
}

fn login(registry: &Registry) -> String {
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    format!(
        r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#,
        registry.address
    )
}

async fn forget(lab: &Lab, image: &str) {
    let _ = lab
        .docker
        .remove_image(
            image,
            None::<bollard::query_parameters::RemoveImageOptions>,
            None,
        )
        .await;
}

fn why<T>(result: Result<T, RuntimeError>) -> String {
    match result {
        Err(error) if error.outcome() == Outcome::Errored => error.reason,
        Err(error) => panic!("failed rather than errored: {error}"),
        Ok(_) => panic!("no error"),
    }
}

async fn a_pull_uses_the_users_login_and_tries_again(lab: Arc<Lab>) {
    let registry = Registry::open(2).await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, &login(&registry)).await;
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let image = registry.image("app");
    let prepared = cell.stack.prepare(&pulls(image.clone())).await.unwrap();
    assert!(
        matches!(&prepared, Some(Prepared::Pulled { detail, .. }) if detail.contains("pulled in")),
        "{prepared:?}"
    );
    assert_eq!(registry.shared.fail.load(Ordering::SeqCst), 0);
    // It is there now.
    assert_eq!(
        cell.stack.prepare(&pulls(image.clone())).await.unwrap(),
        None
    );
    cell.down().await;
    forget(&lab, &image).await;
}

async fn one_pull_serves_all_who_wait(lab: Arc<Lab>) {
    let registry = Registry::open(0).await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, &login(&registry)).await;
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let image = registry.image("shared");
    let always = ServiceConfig {
        pull_policy: PullPolicy::Always,
        ..pulls(image.clone())
    };
    let all = (0..10).map(|_| cell.stack.prepare(&always));
    for answer in futures::future::join_all(all).await {
        answer.unwrap();
    }
    // The engine itself asks for a manifest twice (HEAD and GET) per pull.
    assert!(registry.shared.given.load(Ordering::SeqCst) <= 2);
    cell.down().await;
    forget(&lab, &image).await;
}

async fn an_image_that_was_fetched_beforehand_is_not_pulled_again(lab: Arc<Lab>) {
    let registry = Registry::open(0).await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, &login(&registry)).await;
    let image = registry.image("early");
    runtime.prefetch(&image).await.unwrap();
    assert!(runtime.images_present().await.unwrap().contains(&image));
    let given = registry.shared.given.load(Ordering::SeqCst);
    runtime.prefetch(&image).await.unwrap();
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    assert_eq!(
        cell.stack.prepare(&pulls(image.clone())).await.unwrap(),
        None
    );
    assert_eq!(registry.shared.given.load(Ordering::SeqCst), given);
    cell.down().await;
    forget(&lab, &image).await;
}

/// Runs no cells.
struct Idle;

impl CellSpawner for Idle {
    fn spawn(&self, _: Assignment) {}
}

async fn what_the_coordinator_forbids_is_not_pulled_ahead(lab: Arc<Lab>) {
    let (forbidden, allowed) = (Registry::open(0).await, Registry::open(0).await);
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, &login(&allowed)).await;
    let in_force = Arc::new(InForce::new(Guard::open()));
    let mut narrow = Rules::open("narrow.toml");
    let only = Allow::Only(vec![allowed.address.to_string()]);
    narrow.set(Rule::Registries, only, "narrow.toml:1");
    in_force.narrow(Some(narrow));
    // One after the other, so the second one is pulled when the first one is over.
    let (ahead, preparing) = Preparing::new(runtime.clone(), in_force, dir.path().into(), 1);
    let link = link::start(link::Args {
        about: About {
            agent: settings.agent.clone(),
            name: String::new(),
            version: String::new(),
            labels: Vec::new(),
            slots: 1,
            resources: Resources::default(),
            images: Vec::new(),
            policy: None,
            ahead: 1,
            snapshots: None,
        },
        instance: String::new(),
        coordinator: Coordinator::at(&format!("unix:{}/none", dir.path().display()), None).unwrap(),
        state_dir: dir.path().join("state"),
        cells: Arc::new(Idle),
        images: None,
        clock: Arc::new(SystemClock::default()),
        events: Default::default(),
        logs: Default::default(),
        stay: Default::default(),
        snapshots: None,
    });
    let task = tokio::spawn(preparing.run(link.await.unwrap()));
    let image = allowed.image("ahead");
    ahead.prefetch(vec![
        WantedImage::plain(&forbidden.image("ahead")),
        WantedImage::plain(&image),
    ]);
    while !runtime.has(&image).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(forbidden.shared.asked.load(Ordering::SeqCst), 0);
    task.abort();
    forget(&lab, &image).await;
}

async fn a_credential_helper_is_asked(lab: Arc<Lab>) {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::open(0).await;
    let dir = tempfile::tempdir().unwrap();
    // Helpers are found on PATH: a name with a path in it reaches ours without changing PATH for all tests.
    let helper = dir.path().join("helper");
    std::fs::write(
        &helper,
        format!("#!/bin/sh\nread host\ntest \"$host\" = {} && echo '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n", registry.address),
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let link = format!(
        "/usr/local/bin/docker-credential-{}",
        dir.path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace('.', "x")
    );
    if std::os::unix::fs::symlink(&helper, &link).is_err() {
        // Without the right to put a program on PATH there is nothing to ask.
        return;
    }
    let name = link.rsplit("credential-").next().unwrap();
    let config = format!(r#"{{"credHelpers":{{"{}":"{name}"}}}}"#, registry.address);
    let (runtime, settings) = with_config(&lab, &dir, &config).await;
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let image = registry.image("helped");
    let prepared = cell.stack.prepare(&pulls(image.clone())).await;
    std::fs::remove_file(&link).unwrap();
    assert!(
        matches!(prepared, Ok(Some(Prepared::Pulled { .. }))),
        "{prepared:?}"
    );
    cell.down().await;
    forget(&lab, &image).await;
}

async fn a_missing_image_is_an_error_with_its_name(lab: Arc<Lab>) {
    let registry = Registry::open(0).await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, &login(&registry)).await;
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let error = why(cell.stack.prepare(&pulls(registry.image("absent"))).await);
    assert!(
        error.contains("service s: pulling") && error.contains("absent:1"),
        "{error}"
    );
    assert!(error.contains("manifest"), "{error}");
    cell.down().await;
}

async fn a_pull_without_login_says_so(lab: Arc<Lab>) {
    let registry = Registry::open(0).await;
    let dir = tempfile::tempdir().unwrap();
    let (runtime, settings) = with_config(&lab, &dir, "{}").await;
    let cell = lab.cell_of(runtime, &settings.agent, |_| {}).await.unwrap();
    let error = why(cell.stack.prepare(&pulls(registry.image("app"))).await);
    assert!(
        error.contains("no basic auth credentials") || error.contains("authentication required"),
        "{error}"
    );
    cell.down().await;
}

fn builds(build: Build) -> ServiceConfig {
    ServiceConfig {
        image: None,
        build: Some(build),
        command: None,
        ..script("built", "")
    }
}

fn inline(text: &str) -> Build {
    Build {
        dockerfile_inline: Some(text.replace("BASE", BUSYBOX)),
        // Two tests with the same text are to build twice.
        labels: [("test".to_owned(), uuid::Uuid::new_v4().to_string())]
            .into_iter()
            .collect(),
        ..Build::default()
    }
}

async fn run(cell: &Cell, config: ServiceConfig) -> Service {
    let service = cell.up(config).await;
    service.exit().await;
    service
}

/// The image a service's container was made from, to be removed by the test.
async fn drop_image(lab: &Lab, cell: &Cell, service: &str) {
    let image = cell.inspect(service).await.config.unwrap().image.unwrap();
    cell.down().await;
    forget(lab, &image).await;
}

/// A cell whose images are built by one builder, in a workspace with these files.
async fn cell_with(lab: &Lab, builder: Builder, files: &[(&str, &str)]) -> Cell {
    let settings = DockerSettings {
        builder,
        ready_networks: 0,
        ..lab.settings()
    };
    let runtime = DockerRuntime::connect(settings.clone()).await.unwrap();
    let workspace = |scope: &mut AttemptScope| {
        let root = scope.scratch.join("workspace");
        std::fs::create_dir_all(&root).unwrap();
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        scope.workspace = Some(root);
    };
    lab.cell_of(runtime, &settings.agent, workspace)
        .await
        .unwrap()
}

async fn a_build_takes_context_arguments_and_target(lab: Arc<Lab>) {
    takes_context_arguments_and_target(lab, Builder::Buildkit).await;
}

async fn the_classic_builder_takes_them_too(lab: Arc<Lab>) {
    takes_context_arguments_and_target(lab, Builder::Classic).await;
}

async fn takes_context_arguments_and_target(lab: Arc<Lab>, builder: Builder) {
    let dockerfile = "FROM BASE AS one\nARG WHO=nobody\nENV WHO=$WHO\nCOPY . /app\nRUN echo built > /app/built\nCMD [\"sh\", \"-c\", \"echo $WHO; ls /app; cat /app/built\"]\nFROM one AS two\nCMD [\"false\"]\n";
    let files = [
        ("app/docker/File", dockerfile.replace("BASE", BUSYBOX)),
        ("app/.dockerignore", "*.log\ndocker".to_owned()),
        ("app/a.txt", String::new()),
        ("app/b.log", String::new()),
    ];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    let cell = cell_with(&lab, builder, &files).await;
    let build = Build {
        context: "./app".into(),
        dockerfile: Some("docker/File".into()),
        args: [("WHO".to_owned(), Some("me".to_owned()))]
            .into_iter()
            .collect(),
        target: Some("one".into()),
        labels: [("test".to_owned(), uuid::Uuid::new_v4().to_string())]
            .into_iter()
            .collect(),
        ..Build::default()
    };
    let config = builds(build);
    let prepared = cell.stack.prepare(&config).await.unwrap();
    assert!(
        matches!(&prepared, Some(Prepared::Built(_))),
        "{prepared:?}"
    );
    let service = run(&cell, config).await;
    assert_eq!(service.log.stdout(), "me\na.txt\nbuilt\ndocker\nbuilt\n");
    drop_image(&lab, &cell, "built").await;
}

async fn a_repository_is_built_from_its_default_branch_or_the_one_that_is_named(lab: Arc<Lab>) {
    let repository = Repository::open("trunk").await;
    let dockerfile = |says: &str| format!("FROM {BUSYBOX}\nCMD [\"echo\", \"{says}\"]\n");
    repository.commit("Dockerfile", &dockerfile("trunk"));
    repository.commit("below/Dockerfile", &dockerfile("below"));
    repository.branch("other");
    repository.commit("Dockerfile", &dockerfile("other"));
    let url = repository.url();
    // BuildKit takes a folder since Docker 23.
    let whole = [("", "trunk\n"), ("#other", "other\n")];
    let folders = [("#:below", "below\n"), ("#other:below", "below\n")];
    for (builder, cases) in [
        (Builder::Buildkit, whole.to_vec()),
        (Builder::Classic, [whole, folders].concat()),
    ] {
        for (fragment, says) in cases {
            let cell = cell_with(&lab, builder, &[]).await;
            let build = Build {
                context: format!("{url}{fragment}"),
                dockerfile_inline: None,
                ..inline("")
            };
            let service = run(&cell, builds(build)).await;
            assert_eq!(service.log.stdout(), says, "{builder:?} {fragment}");
            drop_image(&lab, &cell, "built").await;
        }
    }
}

async fn further_contexts_are_directories_images_and_other_services(lab: Arc<Lab>) {
    takes_further_contexts(lab, Builder::Buildkit).await;
}

async fn the_classic_builder_takes_further_contexts_too(lab: Arc<Lab>) {
    takes_further_contexts(lab, Builder::Classic).await;
}

async fn takes_further_contexts(lab: Arc<Lab>, builder: Builder) {
    let files = [
        ("app/own.txt", "own"),
        ("lib/sub/a.txt", "of lib"),
        ("lib/b.log", "left out"),
        ("lib/.dockerignore", "*.log"),
    ];
    let cell = cell_with(&lab, builder, &files).await;
    let base = ServiceConfig {
        name: "base".to_owned(),
        ..builds(inline(
            "FROM BASE\nRUN echo of base > /base.txt\nCMD [\"true\"]\n",
        ))
    };
    let context = |name: &str, source| NamedContext {
        name: name.to_owned(),
        source,
    };
    let build = Build {
        context: "./app".into(),
        contexts: vec![
            context("lib", ContextSource::Directory("./lib".into())),
            context("tools", ContextSource::Image(BUSYBOX.into())),
            context(
                "base",
                ContextSource::Service {
                    name: "base".to_owned(),
                    of: Some(Box::new(base.clone())),
                },
            ),
        ],
        ..inline(
            "ARG UNUSED=1\nFROM base\nCOPY . /app\nCOPY --from=lib / /lib-files\nCOPY --from=tools /bin/busybox /tool\nCMD [\"sh\", \"-c\", \"cat /base.txt /app/own.txt /lib-files/sub/a.txt; ls /app /lib-files; test -x /tool && echo tool\"]\n",
        )
    };
    let config = builds(build);
    let service = run(&cell, config.clone()).await;
    assert_eq!(
        service.log.stdout(),
        "of base\nownof lib/app:\nown.txt\n\n/lib-files:\nsub\ntool\n"
    );
    // It is known again by what it was built of.
    let again = cell_with(&lab, builder, &files).await;
    assert_eq!(again.stack.prepare(&config).await.unwrap(), None);
    again.down().await;
    cell.create(base).await.unwrap();
    let base = cell.inspect("base").await.config.unwrap().image.unwrap();
    drop_image(&lab, &cell, "built").await;
    forget(&lab, &base).await;
}

async fn an_inline_dockerfile_needs_no_context(lab: Arc<Lab>) {
    let cell = lab.cell().await;
    let config = builds(inline("FROM BASE\nCMD [\"echo\", \"inline\"]\n"));
    let service = run(&cell, config).await;
    assert_eq!(service.log.stdout(), "inline\n");
    drop_image(&lab, &cell, "built").await;
}

async fn a_failing_build_shows_its_last_lines(lab: Arc<Lab>) {
    for (builder, code) in [
        (Builder::Buildkit, "exit code: 9"),
        (Builder::Classic, "returned a non-zero code: 9"),
    ] {
        let cell = cell_with(&lab, builder, &[]).await;
        let config = builds(inline(
            "FROM BASE\nRUN echo the cause of it >&2 && exit 9\n",
        ));
        let error = why(cell.stack.prepare(&config).await);
        assert!(error.contains("service built: building"), "{error}");
        assert!(
            error.contains("the cause of it") && error.contains(code),
            "{error}"
        );
        cell.down().await;
    }
    // Nor is the container of the failed step left.
    let all = bollard::query_parameters::ListContainersOptionsBuilder::default()
        .all(true)
        .build();
    let found = lab.docker.list_containers(Some(all)).await.unwrap();
    assert!(!found.iter().any(|c| {
        c.command
            .as_deref()
            .is_some_and(|c| c.contains("the cause of it"))
    }));
}

async fn buildkit_takes_mounts_secrets_agents_and_hosts(lab: Arc<Lab>) {
    let cell = cell_with(&lab, Builder::Auto, &[("token.txt", "text-of-a-file")]).await;
    let agent = cell.scratch.path().join("agent.sock");
    let _listening = tokio::net::UnixListener::bind(&agent).unwrap();
    let secret = |id: &str, source| BuildSecret {
        id: id.into(),
        source,
    };
    let build = Build {
        secrets: vec![
            secret("word", FileSource::Text("text-itself".into())),
            secret("file", FileSource::Path("token.txt".into())),
        ],
        ssh: vec![SshAgent {
            id: "default".into(),
            socket: agent.display().to_string(),
        }],
        extra_hosts: vec!["one.test:10.1.2.3".into(), "two.test:10.1.2.4".into()],
        ..inline(
            "FROM BASE\n\
             RUN --mount=type=secret,id=word cat /run/secrets/word > /seen\n\
             RUN --mount=type=secret,id=file,target=/there cat /there >> /seen\n\
             RUN --mount=type=cache,target=/cache touch /cache/x\n\
             RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo +agent >> /seen\n\
             RUN grep -c '10.1.2.[34]' /etc/hosts >> /seen\n\
             CMD [\"sh\", \"-c\", \"cat /seen; cat /run/secrets/* /there /cache/x 2> /dev/null\"]\n",
        )
    };
    let service = run(&cell, builds(build)).await;
    // Nothing of the mounts is left in the image.
    assert_eq!(service.log.stdout(), "text-itselftext-of-a-file+agent\n2\n");
    drop_image(&lab, &cell, "built").await;
}

async fn a_secret_that_the_build_doesnt_name_is_refused(lab: Arc<Lab>) {
    let cell = cell_with(&lab, Builder::Auto, &[]).await;
    let config = builds(inline(
        "FROM BASE\nRUN --mount=type=secret,id=other,required=true cat /run/secrets/other\n",
    ));
    let error = why(cell.stack.prepare(&config).await);
    assert!(error.contains("other"), "{error}");
    let missing = builds(Build {
        secrets: vec![BuildSecret {
            id: "file".into(),
            source: FileSource::Path("no-such-file".into()),
        }],
        ..inline("FROM BASE\nRUN --mount=type=secret,id=file true\n")
    });
    let error = cell.stack.prepare(&missing).await.unwrap_err();
    assert!(
        error.reason.contains("the secret file: no-such-file"),
        "{error}"
    );
    cell.down().await;
}

/// The bound is against hanging.
async fn a_long_build_says_what_it_does(lab: Arc<Lab>) {
    for (builder, step) in [
        (Builder::Buildkit, "RUN sleep 3"),
        (Builder::Classic, "RUN sleep 3"),
    ] {
        let cell = cell_with(&lab, builder, &[]).await;
        // BuildKit would take the step from its cache.
        let new = uuid::Uuid::new_v4();
        let config = builds(inline(&format!(
            "FROM BASE\nRUN sleep 3 && echo {new}\nCMD [\"true\"]\n"
        )));
        let mut seen = String::new();
        {
            let mut building = cell.stack.prepare(&config);
            loop {
                let wait = std::time::Duration::from_millis(20);
                match tokio::time::timeout(wait, &mut building).await {
                    Ok(answer) => break drop(answer.unwrap()),
                    Err(_) => seen.extend(cell.stack.preparing("built")),
                }
            }
        }
        assert!(seen.contains(step), "{seen}");
        assert_eq!(cell.stack.preparing("built"), None);
        run(&cell, config).await;
        drop_image(&lab, &cell, "built").await;
    }
}

async fn what_needs_buildkit_is_refused_at_its_line_without_it(lab: Arc<Lab>) {
    let file = "FROM x\n\nRUN --mount=type=cache,target=/x true\n";
    let cell = cell_with(&lab, Builder::Classic, &[("Dockerfile", file)]).await;
    let error = why(cell.stack.prepare(&builds(Build::default())).await);
    assert!(error.contains("Dockerfile:3: `RUN --mount`"), "{error}");
    let error = why(cell
        .stack
        .prepare(&builds(Build {
            dockerfile: Some("other".into()),
            ..Build::default()
        }))
        .await);
    assert!(error.contains("other in"), "{error}");
    let secret = BuildSecret {
        id: "word".into(),
        source: FileSource::Text("text".into()),
    };
    let error = why(cell
        .stack
        .prepare(&builds(Build {
            secrets: vec![secret],
            ..inline("FROM BASE\n")
        }))
        .await);
    assert!(error.contains("`secrets` needs BuildKit"), "{error}");
    cell.down().await;
}

async fn a_build_that_was_done_is_not_done_again(lab: Arc<Lab>) {
    let config = builds(inline("FROM BASE\nRUN echo once\nCMD [\"true\"]\n"));
    let (one, two) = (lab.cell().await, lab.cell().await);
    let (first, second) = tokio::join!(one.stack.prepare(&config), one.stack.prepare(&config));
    assert!(matches!(first.unwrap(), Some(Prepared::Built(_))));
    second.unwrap();
    // Another run finds the same inputs.
    assert_eq!(two.stack.prepare(&config).await.unwrap(), None);
    // Unless it is told to build.
    let three = lab.cell().await;
    let anew = ServiceConfig {
        pull_policy: PullPolicy::Build,
        ..config.clone()
    };
    assert!(matches!(
        three.stack.prepare(&anew).await.unwrap(),
        Some(Prepared::Built(_))
    ));
    run(&two, config).await;
    one.down().await;
    three.down().await;
    drop_image(&lab, &two, "built").await;
}

async fn a_context_outside_the_workspace_is_refused(lab: Arc<Lab>) {
    let cell = lab.cell_in(&[("a", "")]).await;
    let at = |context: &str| {
        builds(Build {
            context: context.into(),
            ..Build::default()
        })
    };
    for (context, reason) in [
        ("../..", "`..`"),
        ("missing", "workspace.include"),
        ("a", "not a directory"),
    ] {
        let error = why(cell.stack.prepare(&at(context)).await);
        assert!(error.contains(context) && error.contains(reason), "{error}");
    }
    cell.down().await;
}

async fn cells_that_build_different_images_under_one_name_get_their_own(lab: Arc<Lab>) {
    let name = format!("phalanx-test/one-name-{}:1", uuid::Uuid::new_v4().simple());
    let with = |word: &str| ServiceConfig {
        image: Some(name.clone()),
        ..builds(inline(&format!("FROM BASE\nCMD [\"echo\", \"{word}\"]\n")))
    };
    let (one, two) = (lab.cell().await, lab.cell().await);
    let (first, second) = tokio::join!(run(&one, with("first")), run(&two, with("second")));
    assert_eq!(first.log.stdout(), "first\n");
    assert_eq!(second.log.stdout(), "second\n");
    assert!(lab.docker.inspect_image(&name).await.is_ok());
    drop_image(&lab, &one, "built").await;
    drop_image(&lab, &two, "built").await;
    forget(&lab, &name).await;
}

async fn no_intermediate_container_is_left_when_a_build_is_abandoned(lab: Arc<Lab>) {
    let cell = cell_with(&lab, Builder::Classic, &[]).await;
    let marker = uuid::Uuid::new_v4().simple().to_string();
    let config = builds(inline(&format!(
        "FROM BASE\nRUN echo {marker} && sleep 600\n"
    )));
    let running = || async {
        let all = bollard::query_parameters::ListContainersOptionsBuilder::default()
            .all(true)
            .build();
        let found = lab.docker.list_containers(Some(all)).await.unwrap();
        found
            .iter()
            .filter(|c| c.command.as_deref().is_some_and(|c| c.contains(&marker)))
            .count()
    };
    {
        let building = cell.stack.prepare(&config);
        tokio::pin!(building);
        loop {
            tokio::select! {
                answer = &mut building => panic!("it ended: {answer:?}"),
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {}
            }
            if running().await > 0 {
                break;
            }
        }
        // Dropped here: nobody waits for it any more.
    }
    while running().await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cell.down().await;
}

/// BuildKit's steps are no containers, so this looks for the process. The loops are bounded by the test's own limit.
async fn buildkit_ends_a_build_that_is_abandoned(lab: Arc<Lab>) {
    let cell = cell_with(&lab, Builder::Buildkit, &[]).await;
    let marker = uuid::Uuid::new_v4().simple().to_string();
    let config = builds(inline(&format!(
        "FROM BASE\nRUN sh -c 'sleep 600; : {marker}'\n"
    )));
    let running = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let commands = processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
        let mut commands = commands.map(|words| String::from_utf8_lossy(&words).into_owned());
        commands.any(|words| words.contains("sleep 600") && words.contains(&marker))
    };
    {
        let mut building = cell.stack.prepare(&config);
        while !running() {
            let wait = std::time::Duration::from_millis(50);
            if let Ok(answer) = tokio::time::timeout(wait, &mut building).await {
                panic!("it ended: {answer:?}");
            }
        }
        // Dropped here: nobody waits for it any more.
    }
    while running() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cell.down().await;
}
