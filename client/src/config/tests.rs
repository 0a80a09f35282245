#![allow(clippy::unwrap_used)]
use super::*;
use std::path::PathBuf;

fn machine() -> Machine {
    Machine {
        cpus: 2,
        state_home: PathBuf::from("/home/me/.local/state"),
    }
}

fn layers(
    files: &[(&str, &str)],
    variables: &[(&str, &str)],
    flags: Vec<Flag>,
) -> (tempfile::TempDir, Layers) {
    let directory = tempfile::tempdir().unwrap();
    let files = files.iter().map(|(name, text)| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    });
    let layers = Layers {
        files: files.collect(),
        project: None,
        variables: variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        flags,
    };
    (directory, layers)
}

fn slots_flag() -> Flag {
    Flag {
        key: "slots",
        name: "--slots",
        value: "27".to_owned(),
    }
}

#[test]
fn a_relative_directory_is_that_of_the_start() {
    let (_directory, layers) = layers(&[], &[("PHALANX_STATE_DIR", "state")], vec![]);
    let settings = Settings::load(&layers, machine()).unwrap();
    let here = std::env::current_dir().unwrap();
    assert_eq!(settings.get(&place::STATE_DIR), here.join("state"));
}

#[test]
fn each_layer_outranks_the_one_before_and_is_named_as_origin() {
    let (_directory, layers) = layers(
        &[
            ("system.toml", "slots = 3\nagents = 4\n[keep]\nttl_s = 60\n"),
            ("phalanx.toml", "agents = 5\ncolor = \"never\"\n"),
        ],
        &[
            ("PHALANX_KEEP__TTL_S", "90"),
            ("PHALANX_FUZZ_SECONDS", "20"),
            ("PATH", "/bin"),
        ],
        vec![slots_flag()],
    );
    let settings = Settings::load(&layers, machine()).unwrap();
    assert_eq!(settings.get(&fleet::SLOTS), 27);
    assert_eq!(settings.get(&fleet::AGENTS), 5);
    assert_eq!(settings.get(&stack::KEEP_TTL_S), 90);
    assert_eq!(settings.get(&output::COLOR), output::Color::Never);
    assert_eq!(
        settings.get(&place::STATE_DIR),
        PathBuf::from("/home/me/.local/state/phalanx")
    );
    let shown = settings.shown();
    let origin = |key: &str| {
        shown
            .iter()
            .find(|shown| shown.key == key)
            .unwrap()
            .origin
            .clone()
    };
    assert_eq!(origin("slots"), "--slots");
    assert!(
        origin("agents").ends_with("phalanx.toml"),
        "{}",
        origin("agents")
    );
    assert_eq!(origin("keep.ttl_s"), "PHALANX_KEEP__TTL_S");
    assert_eq!(origin("policy"), "default");
}

#[test]
fn every_wrong_setting_is_told_at_once_with_its_place_and_a_suggestion() {
    let (_directory, layers) = layers(
        &[(
            "phalanx.toml",
            "slot = 3\nagents = \"many\"\n[keep]\nttl = 60\n",
        )],
        &[("PHALANX_STATEDIR", "/x"), ("PHALANX_CPU_OVERCOMMIT", "-1")],
        Vec::new(),
    );
    let errors = Settings::load(&layers, machine()).unwrap_err();
    let text = errors.to_string();
    assert_eq!(errors.0.len(), 5, "{text}");
    for part in [
        "unknown setting `slot`",
        "did you mean `slots`?",
        "did you mean `keep.ttl_s`?",
        "`agents`",
        "is `many`, expected a whole number",
        "did you mean `PHALANX_STATE_DIR`?",
        "(PHALANX_CPU_OVERCOMMIT) is `-1`, expected a number above 0",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn a_broken_file_is_named() {
    let (_directory, layers) = layers(&[("phalanx.toml", "slots = [\n")], &[], Vec::new());
    let text = Settings::load(&layers, machine()).unwrap_err().to_string();
    assert!(text.contains("phalanx.toml"), "{text}");
}

#[test]
fn every_setting_has_a_doc_a_distinct_key_and_a_default_that_it_accepts() {
    let mut keys: Vec<&str> = ALL.iter().map(|setting| setting.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), ALL.len());
    for setting in ALL {
        assert!(!setting.doc().is_empty());
        let default = setting.show(None, &machine());
        let accepted = setting.check(&config::Value::from(default.clone()));
        assert_eq!(accepted, Ok(()), "{}: {default}", setting.key());
    }
}

#[test]
fn a_project_gives_only_what_redirects_nobody() {
    for key in layers::OF_A_PROJECT {
        assert!(ALL.iter().any(|setting| setting.key() == key), "{key}");
    }
    let text = "coordinator = \"http://x:1\"\nstate_dir = \"/x\"\npolicy = \"/x\"\nslots = 3\n\
                [docker]\nhost = \"tcp://x:1\"\nconfig_dir = \"x\"\nsubnets = \"10.0.0.0/8\"\npull_tries = 2\n\
                [serve]\nsecrets_dir = \"x\"\n";
    let (directory, mut layers) = layers(&[("mine.toml", text)], &[], Vec::new());
    assert!(Settings::load(&layers, machine()).is_ok(), "a user may");
    layers.files.clear();
    layers.project = Some(directory.path().join("mine.toml"));
    let errors = Settings::load(&layers, machine()).unwrap_err();
    let told = errors.to_string();
    assert_eq!(errors.0.len(), 7, "{told}");
    for key in [
        "coordinator",
        "state_dir",
        "policy",
        "docker.host",
        "docker.config_dir",
        "docker.subnets",
        "serve.secrets_dir",
    ] {
        assert!(told.contains(&format!("`{key}` (")), "{key}: {told}");
    }
    for part in [
        "mine.toml",
        "~/.config/phalanx/config.toml",
        "PHALANX_DOCKER__HOST",
        "--coordinator",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
