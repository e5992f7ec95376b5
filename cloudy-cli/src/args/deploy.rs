//! The files of `docs/deploy`: each is read, and their command lines and metrics exist.

use std::ffi::OsString;
use std::path::PathBuf;

use yaml_rust2::{Yaml, YamlLoader};

use super::{Cli, Command};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).expect(name)
}

fn yaml(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&text(name)).expect(name)
}

fn texts(list: &Yaml) -> Vec<String> {
    list.as_vec().expect("a list").iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

fn join_of(words: impl IntoIterator<Item = String>) -> super::JoinArgs {
    let line: Vec<OsString> = std::iter::once("cloudy".to_owned()).chain(words).map(OsString::from).collect();
    match Cli::parse_with_warnings(line.clone()) {
        Ok((cli, _)) => match cli.command {
            Command::Join(args) => args,
            other => panic!("{other:?}"),
        },
        Err(error) => panic!("{line:?}: {error}"),
    }
}

#[test]
fn the_unit_starts_a_member_with_the_options_of_the_file() {
    let unit = text("cloudy.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    let config = folder().join("cloudy.toml").display().to_string();
    let line = value("ExecStart=/usr/local/bin/cloudy ").replace("/etc/cloudy/cloudy.toml", &config);
    let args = join_of(line.split_whitespace().map(str::to_owned));
    assert_eq!((args.group.as_str(), args.stay, args.seeds.len()), ("orders", true, 3));
    assert_eq!(args.expect.map(std::num::NonZeroU16::get), Some(3));
    assert_eq!(value("Type="), "notify");
    // The unit waits longer than the command.
    assert_eq!((value("TimeoutStartSec="), args.open_timeout.as_secs()), ("10min", 540));
    let sections: Vec<&str> = unit.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(sections, ["[Unit]", "[Service]", "[Install]"]);
    let is_setting = |line: &&str| line.split_once('=').is_some_and(|(key, _)| key.chars().all(char::is_alphanumeric));
    let others: Vec<&str> = unit
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '[']))
        .filter(|line| !is_setting(line))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn compose_starts_three_members_with_their_variables() {
    let file = &yaml("compose.yaml")[0];
    let member = &file["x-member"];
    let args = join_of(texts(&member["command"]));
    assert_eq!((args.stay, args.expect.map(std::num::NonZeroU16::get)), (true, Some(3)));
    let services: Vec<&str> = file["services"].as_hash().expect("services").keys().filter_map(Yaml::as_str).collect();
    let seeds = member["environment"]["CLOUDY_SEEDS"].as_str().expect("seeds");
    assert!(seeds.split(',').eq(services.iter().map(|name| format!("{name}:7400"))), "{seeds} {services:?}");
    let variables = Cli::variables();
    for (name, _) in member["environment"].as_hash().expect("variables") {
        let name = name.as_str().expect("a name");
        let is_known = variables.iter().any(|known| known == name);
        assert!(is_known || name == cloudy_node::key_file::CLUSTER_KEY_FILE_VARIABLE, "{name}");
    }
}

#[test]
fn kubernetes_starts_as_many_members_as_the_group_has() {
    let documents = yaml("kubernetes.yaml");
    let kind =
        |kind: &str| documents.iter().find(|document| document["kind"].as_str() == Some(kind)).expect("a document");
    let (set, service) = (kind("StatefulSet"), kind("Service"));
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let args = join_of(texts(&container["args"]));
    let (replicas, name) = (set["spec"]["replicas"].as_i64(), set["metadata"]["name"].as_str().expect("a name"));
    assert_eq!(args.expect.map(|expect| i64::from(expect.get())), replicas);
    let service_name = service["metadata"]["name"].as_str().expect("a name");
    let pods = (0..replicas.expect("a number")).map(|at| format!("{name}-{at}.{service_name}:7400"));
    assert!(pods.eq(args.seeds.iter().cloned()), "{:?}", args.seeds);
    assert_eq!(service["spec"]["clusterIP"].as_str(), Some("None"));
    assert_eq!(service["spec"]["publishNotReadyAddresses"].as_bool(), Some(true));
    assert_eq!(set["spec"]["serviceName"].as_str(), Some(service_name));
    // Each place of the labels selects the pods.
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    for selector in [
        &set["spec"]["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    // What is mounted is a volume or a claim.
    let claims =
        set["spec"]["volumeClaimTemplates"].as_vec().expect("claims").iter().map(|claim| &claim["metadata"]["name"]);
    let volumes: Vec<&Yaml> =
        pod["volumes"].as_vec().expect("volumes").iter().map(|volume| &volume["name"]).chain(claims).collect();
    for mount in container["volumeMounts"].as_vec().expect("mounts") {
        assert!(volumes.contains(&&mount["name"]), "{mount:?}");
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"].as_str(), Some("admin"), "{probe}");
    }
}

#[test]
fn the_image_has_the_program_and_no_root() {
    let file = text("Dockerfile");
    for line in ["ENTRYPOINT [\"/usr/local/bin/cloudy\"]", "USER 65532:65532", "EXPOSE 7400/udp 7401/tcp"] {
        assert!(file.lines().any(|found| found == line), "{line}");
    }
    // As the workspace: a newer compiler is not needed, and an older one is not enough.
    let manifest = std::fs::read_to_string(folder().join("../../Cargo.toml")).expect("the manifest");
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(file.contains(&format!("FROM rust:{}-", version.trim_matches('"'))), "{version}");
}

#[test]
fn alerts_and_panels_use_metrics_that_a_node_has() {
    let source = include_str!("../../../cloudy-node/src/admin/metrics.rs");
    let rules = &yaml("prometheus-rules.yaml")[0]["groups"][0]["rules"];
    let alerts =
        rules.as_vec().expect("rules").iter().map(|rule| rule["expr"].as_str().expect("an expression").to_owned());
    let dashboard: serde_json::Value = serde_json::from_str(&text("grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let queries = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let queries = queries.map(|target| target["expr"].as_str().expect("an expression").to_owned());
    let mut checked = 0;
    for expression in alerts.chain(queries) {
        let names = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for name in names.filter_map(|name| name.strip_prefix("cloudy_")) {
            let plain = name.trim_end_matches("_bucket").trim_end_matches("_total");
            let (base, unit) = ["seconds", "bytes", "messages"]
                .iter()
                .find_map(|unit| Some((plain.strip_suffix(&format!("_{unit}"))?, Some(*unit))))
                .unwrap_or((plain, None));
            let known = match unit {
                Some(unit) => format!("\"{base}\", Some(\"{unit}\")"),
                None => format!("\"{base}\", None"),
            };
            let in_list = unit.is_some_and(|unit| source.contains(&format!("\"{base}\", \"{unit}\"")));
            assert!(source.contains(&known) || in_list, "{name} in {expression}");
            checked += 1;
        }
    }
    assert!(checked > 15, "{checked}");
}
