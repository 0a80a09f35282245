//! Converts the settings `docker.*` to the options of an agent's Docker runtime. Agents as processes receive the same
//! as JSON.

use crate::config::docker::{self, Builder, Reach};
use crate::config::{Setting, Settings};
use phalanx_agent::runtime::docker::{self as runtime, DockerSettings};
use std::path::PathBuf;

/// Returns how agents of this machine run containers.
pub fn of_agents(settings: &Settings) -> DockerSettings {
    let text =
        |setting: &Setting<String>| Some(settings.get(setting)).filter(|text| !text.is_empty());
    let count =
        |setting: &Setting<u32>| usize::try_from(settings.get(setting)).unwrap_or(usize::MAX);
    DockerSettings {
        host: text(&docker::HOST),
        docker_config: text(&docker::CONFIG_DIR).map(PathBuf::from),
        reach: match settings.get(&docker::REACH) {
            Reach::Auto => runtime::Reach::Auto,
            Reach::Direct => runtime::Reach::Direct,
            Reach::Published => runtime::Reach::Published,
            Reach::Join => runtime::Reach::Join,
        },
        subnets: settings.get(&docker::SUBNETS),
        // An invalid prefix length is refused where the pool is made, with its value in the message.
        subnet_prefix: u8::try_from(settings.get(&docker::SUBNET_PREFIX)).unwrap_or(u8::MAX),
        subnets_v6: settings.get(&docker::SUBNETS_V6),
        ready_networks: count(&docker::READY_NETWORKS),
        concurrent_starts: count(&docker::CONCURRENT_STARTS),
        reconnect_s: settings.get(&docker::RECONNECT_S),
        pull_timeout_s: settings.get(&docker::PULL_TIMEOUT_S),
        pull_tries: settings.get(&docker::PULL_TRIES),
        builder: match settings.get(&docker::BUILDER) {
            Builder::Auto => runtime::Builder::Auto,
            Builder::Buildkit => runtime::Builder::Buildkit,
            Builder::Classic => runtime::Builder::Classic,
        },
        build_timeout_s: settings.get(&docker::BUILD_TIMEOUT_S),
        prefetch: settings.get(&docker::PREFETCH),
        close_timeout_s: settings.get(&docker::CLOSE_TIMEOUT_S),
        engine_log_mib: settings.get(&docker::ENGINE_LOG_MIB),
        ..DockerSettings::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{ALL, Flag, Layers, Machine};

    fn with(key: &'static str, value: &str) -> DockerSettings {
        let flags = vec![Flag {
            key,
            name: "--test",
            value: value.to_owned(),
        }];
        let layers = Layers {
            flags,
            ..Layers::default()
        };
        of_agents(&Settings::load(&layers, Machine::here()).unwrap())
    }

    fn nothing_given() -> DockerSettings {
        of_agents(&Settings::load(&Layers::default(), Machine::here()).unwrap())
    }

    #[test]
    fn without_settings_the_runtime_has_its_own_defaults() {
        assert_eq!(nothing_given(), DockerSettings::default());
    }

    #[test]
    fn each_setting_changes_what_the_runtime_is_given_also_as_json() {
        let docker = ALL.iter().map(|setting| setting.key());
        let mut known = 0;
        for key in docker.filter(|key| key.starts_with("docker.")) {
            let value = match key {
                "docker.host" => "unix:///tmp/engine.sock",
                "docker.config_dir" => "/tmp/docker-config",
                "docker.reach" => "published",
                "docker.builder" => "classic",
                "docker.subnets" => "10.99.0.0/16",
                "docker.subnets_v6" => "fd00:1::/48",
                "docker.subnet_prefix" => "26",
                _ => "7",
            };
            let given = with(key, value);
            assert_ne!(given, nothing_given(), "{key} does nothing");
            let json = serde_json::to_string(&given).unwrap();
            let back: DockerSettings = serde_json::from_str(&json).unwrap();
            assert_eq!(back, given, "{key}");
            known += 1;
        }
        assert!(known >= 13, "{known}");
    }
}
