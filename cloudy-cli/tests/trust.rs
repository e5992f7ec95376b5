//! Certificates of a public key infrastructure in place of a cluster key, and the audit log.
#![cfg(unix)]

mod common;

use std::fs::{self, Permissions, read_to_string};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, Running, cloudy, free_port, run, until};
use data_encoding::BASE64;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;

fn pem(path: &Path, kind: &str, der: &[u8]) {
    fs::write(path, format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64.encode(der))).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// An authority that signs nodes' certificates, and a directory for files.
struct Authority {
    directory: PathBuf,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(DnType::CommonName, directory.display().to_string());
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        pem(&directory.join("ca.pem"), "CERTIFICATE", params.self_signed(&key).unwrap().der());
        Self { directory, params, key }
    }

    /// The options of a node with a certificate of this authority, which are files of this name.
    fn issue(&self, name: &str) -> Vec<String> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["cloudy".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        pem(&self.directory.join(format!("{name}.pem")), "CERTIFICATE", certificate.der());
        pem(&self.directory.join(format!("{name}.key")), "PRIVATE KEY", &key.serialize_der());
        self.options(&format!("{name}.pem"), &format!("{name}.key"), "ca.pem")
    }

    fn options(&self, cert: &str, key: &str, ca: &str) -> Vec<String> {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let options = [("--cert", cert), ("--key", key), ("--ca", ca)];
        options.into_iter().flat_map(|(option, name)| [option.to_owned(), path(name)]).collect()
    }
}

fn join(own: u16, seeds: &[u16], options: &[String]) -> Command {
    let mut command = cloudy(&["join", "orders", "--bind", &format!("127.0.0.1:{own}"), "--stay"]);
    command.args(["--expect", &seeds.len().to_string()]).args(options);
    for seed in seeds {
        command.args(["--seed", &format!("127.0.0.1:{seed}")]);
    }
    command
}

#[test]
fn nodes_with_certificates_of_one_authority_form_a_group_and_wrong_files_are_named() {
    let cluster = Cluster::new();
    let (authority, stranger) = (Authority::new(cluster.path("ours")), Authority::new(cluster.path("theirs")));
    let ports = [free_port(), free_port()];
    let mut members: Vec<Running> =
        ports.iter().map(|port| Running::start(join(*port, &ports, &authority.issue(&port.to_string())))).collect();
    members.iter_mut().for_each(|member| drop(member.wait_for("in group")));
    let tail = |options: &[String]| {
        let mut command = cloudy(&["tail", "--group", "orders", "--seed", &format!("127.0.0.1:{}", ports[0])]);
        command.args(options);
        command
    };
    let mut read = tail(&authority.issue("reader"));
    let output = cluster.path("read");
    let mut reader = read.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
    until("it reads the first view", || read_to_string(&output).unwrap().contains("members"));
    reader.kill().unwrap();
    reader.wait().unwrap();
    run(tail(&stranger.issue("stranger")))
        .failed_with(&["another cluster key (or its certificate comes from another authority)"]);

    let failed = |options: Vec<String>, words: &[&str]| run(tail(&options)).failed_with(words);
    failed(authority.options("reader.pem", &format!("{}.key", ports[0]), "ca.pem"), &["private key", "reader.pem"]);
    failed(authority.options("missing.pem", "reader.key", "ca.pem"), &["cannot read the certificate", "missing.pem"]);
    failed(authority.options("reader.key", "reader.key", "ca.pem"), &["the certificate", "no readable PEM section"]);
    failed(authority.options("reader.pem", "reader.pem", "ca.pem"), &["the private key", "no readable PEM section"]);
    let key = authority.directory.join("reader.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    failed(authority.options("reader.pem", "reader.key", "ca.pem"), &["other users can read", "chmod 600"]);
}

#[test]
fn an_audit_log_has_a_line_for_each_join_eviction_leave_and_change_of_keys() {
    let cluster = Cluster::new();
    let ports = [free_port(), free_port(), free_port()];
    let log = cluster.path("audit.jsonl");
    fs::write(&log, "{\"earlier\":1}\n").unwrap();
    let key = || vec!["--cluster-key".to_owned(), cluster.key.display().to_string()];
    let audited = [key(), vec!["--audit-log".to_owned(), log.display().to_string()]].concat();
    let start = |at: usize, options: &[String]| Running::start(join(ports[at], &ports, options));
    let mut members = [start(0, &audited), start(1, &key()), start(2, &key())];
    members.iter_mut().for_each(|member| drop(member.wait_for("in group")));
    let lines = |event: &str| -> Vec<Value> {
        let text = read_to_string(&log).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    };
    until("all have joined", || lines("joined").len() == 3);
    members[2].signal("KILL");
    until("one is evicted", || lines("evicted").len() == 1);
    members[1].signal("TERM");
    until("one has left", || lines("left").len() == 1);
    let (left, evicted) = (&lines("left")[0], &lines("evicted")[0]);
    assert_ne!(left["node"], evicted["node"]);
    assert!(evicted["reason"].as_str().unwrap().contains("did not answer"), "{evicted}");
    assert!(evicted["at_ms"].as_u64() <= left["at_ms"].as_u64() && left["group"] == "orders", "{left} {evicted}");
    assert_eq!(run(cloudy(&["key", "rotate", &cluster.key.display().to_string()])).code(), Some(0));
    until("the key changes", || lines("keys").iter().any(|line| line["text"].as_str().unwrap().contains("applied")));
    assert!(read_to_string(&log).unwrap().starts_with("{\"earlier\":1}\n"), "it is appended to");

    let nowhere = vec!["--audit-log".to_owned(), cluster.path("missing/audit").display().to_string()];
    run(join(free_port(), &ports, &[key(), nowhere].concat())).failed_with(&["cannot open the audit log"]);
}
