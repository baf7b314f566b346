//! Whole files: the shipped example, what does and does not count for the digest, and broken syntax.

use std::fs;

use super::*;
use crate::cluster::{
    ids::{GroupId, Role, VoterId},
    timing::Timing,
};

const EXAMPLE: &str = include_str!("../../../config/lb-pair.toml");

/// The example with its key file in a directory of its own.
fn example(dir: &Path) -> String {
    let key = dir.join("cluster.key");
    if !key.exists() {
        ClusterKey::generate(&key).unwrap();
    }
    EXAMPLE.replace("/etc/baton/cluster.key", key.to_str().unwrap())
}

fn mistakes(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let text = text.replace("/etc/baton/cluster.key", example_key(dir.path()).to_str().unwrap());
    match check(&dir.path().join("x.toml"), &text, None) {
        Ok(loaded) => loaded.config.warnings,
        Err(e) => e.mistakes().iter().map(|m| format!("{}: {}", m.line, m.message)).collect(),
    }
}

fn example_key(dir: &Path) -> PathBuf {
    let key = dir.join("cluster.key");
    ClusterKey::generate(&key).unwrap();
    key
}

#[test]
fn the_example_is_accepted_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("baton.toml");
    fs::write(&file, example(dir.path())).unwrap();
    let loaded = load(&file, None).unwrap();
    let config = loaded.config;
    assert!(loaded.warnings.is_none() && config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.shared.timing, Timing::DEFAULT);
    assert_eq!(config.this.id, VoterId(1));
    assert_eq!(config.me().unwrap().front, ["eth0"]);
    assert_eq!(config.shared.roles()[2], (VoterId(3), Role::Arbiter));
    let web = &config.shared.groups[&GroupId::new("web")];
    assert_eq!(web.nodes, [VoterId(1), VoterId(2)]);
    assert_eq!(web.vips[0].device[&VoterId(2)], "ens3");
    assert_eq!(web.vips[1].device[&VoterId(2)], "ens3", "the only front is the default device");
    assert_eq!(config.socket(), Path::new("/run/baton/control.sock"));
    assert_eq!(socket_of(Some(&file)).unwrap(), config.socket());
    assert_eq!(load(&file, Some("lb2")).unwrap().config.this.id, VoterId(2));
}

#[test]
fn a_haproxy_is_set_up_from_what_the_file_says() {
    use crate::resources::haproxy::Setup;
    let dir = tempfile::tempdir().unwrap();
    let key = example_key(dir.path());
    let text =
        include_str!("../../../config/haproxy-pair.toml").replace("/etc/baton/cluster.key", key.to_str().unwrap());
    let more = "[[group.haproxy]]\nconfig = { lb1 = \"/a.cfg\", lb2 = \"/b.cfg\" }\nmanaged = \"systemd\"\non_failure = \"restart\"\n\
                drain = \"leave\"\nbackends_min = 0\nsocket = \"/a.sock\"\npeers = \"mesh\"\n";
    let config = check(&dir.path().join("x.toml"), &(text + more), Some("lb2")).unwrap().config;
    let group = &config.shared.groups[&GroupId::new("web")];
    let [first, second] = &Setup::of(&config, group)[..] else { panic!("two") };
    assert_eq!((first.name.as_str(), first.node.as_str()), ("web/haproxy", "lb2"));
    assert_eq!((first.config.to_str(), first.spec.restarts), (Some("/etc/haproxy/haproxy.cfg"), 3));
    assert_eq!((&first.spec.managed, first.spec.restart_window), (&Managed::Process, 60_000_000_000));
    assert_eq!((second.name.as_str(), second.config.to_str()), ("web/haproxy-2", Some("/b.cfg")));
    let expected = Haproxy {
        config: [(VoterId(1), "/a.cfg".into()), (VoterId(2), "/b.cfg".into())].into(),
        managed: Managed::Systemd("haproxy.service".into()),
        on_failure: OnFailure::Restart,
        drain: DrainMode::Leave,
        backends_min: 0,
        socket: Some("/a.sock".into()),
        peers: Some("mesh".into()),
        ..first.spec.clone()
    };
    assert_eq!(second.spec, expected);
}

#[test]
fn the_digest_is_over_what_must_be_equal_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("baton.toml");
    let text = example(dir.path());
    let digest = |text: &str, name| check(&file, text, name).unwrap().config.digest;
    let first = digest(&text, None);
    assert_eq!(digest(&text, Some("lb2")), first, "who this machine is does not count");
    assert_eq!(digest(&text.replace("/var/lib/baton", "/srv/baton"), None), first, "[this] does not count");
    assert_eq!(digest(&text.replace("profile = \"default\"", "interval = \"10ms\"\nlease = \"50ms\""), None), first);
    for (from, to) in [
        ("192.0.2.10", "192.0.2.11"),
        ("profile = \"default\"", "profile = \"quick\""),
        ("10.1.0.3", "10.1.0.4"),
        ("lb1 = 100", "lb1 = 99"),
    ] {
        assert_ne!(digest(&text.replace(from, to), None), first, "{from} -> {to}");
    }
}

#[test]
fn what_binds_groups_counts_for_the_digest_only_where_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("baton.toml");
    let group = |name: &str, address: u8| {
        format!("\n[[group]]\nname = \"{name}\"\nvip = [{{ address = \"192.0.2.{address}/24\" }}]\n")
    };
    let text = example(dir.path()) + &group("net", 97) + &group("db", 98);
    let config = |text: &str| check(&file, text, None).unwrap().config;
    let plain = config(&text);
    let json = serde_json::to_string(&plain.shared).unwrap();
    assert!(!json.contains("constraints") && !json.contains("capacity"), "{json}");
    let with = |lines: &str| config(&(text.clone() + &group("app", 99) + lines));
    let bound = with("after = [\"net\", \"db\"]\nneeds = { cpu = 0.5, memory = \"1GiB\" }\n");
    assert_ne!(bound.digest, with("").digest);
    let other = with("needs = { memory = \"1024MiB\", cpu = 0.500 }\nafter = [\"db\", \"net\"]\n");
    assert_eq!(bound.digest, other.digest, "the order in the file says nothing");
    let constraints = &bound.shared.groups[&crate::cluster::ids::GroupId::new("app")].constraints;
    assert_eq!((constraints.needs.cpu, constraints.needs.memory), (500, 1 << 30));
    let node = "front = [\"eth0\"]\n";
    let capacity = "capacity = { cpu = 2, memory = \"4GiB\", cpu_overcommit = 1.5, memory_overcommit = 2 }\n";
    let roomy = config(&text.replacen(node, &format!("{node}{capacity}"), 1));
    assert_ne!(roomy.digest, plain.digest);
    let room = roomy.me().unwrap().capacity.unwrap().room();
    assert_eq!((room.cpu, room.memory), (Some(3_000), Some(8 << 30)));
}

#[test]
fn broken_syntax_does_not_hide_the_other_mistakes() {
    let text = EXAMPLE.replace("port = 7420", "port = = 7420").replace("stickiness = 100", "stickyness = 100");
    let found = mistakes(&text);
    assert!(found.iter().any(|m| m.starts_with("15: this is not TOML")), "{found:#?}");
    assert!(found.iter().any(|m| m.contains("`stickyness` (did you mean \"stickiness\"?)")), "{found:#?}");
}

#[test]
fn all_mistakes_come_at_once_and_in_the_order_of_the_file() {
    let text = EXAMPLE
        .replace("profile = \"default\"", "profile = \"quik\"")
        .replace("role = \"arbiter\"", "role = \"arbitre\"")
        .replace("192.0.2.10/24", "10.0.0.1/24")
        .replace("lb1 = 100", "lbl = 100");
    let found = mistakes(&text);
    let expected = [
        "there is no profile \"quik\" (did you mean \"quick\"?)",
        "there is no role \"arbitre\" (did you mean \"arbiter\"?)",
        "no node is called \"lbl\" (did you mean \"lb1\"?)",
        "the VIP 10.0.0.1 is taken by the backplane of \"lb1\" already",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.ends_with(expected), "{found}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(cut in 0..EXAMPLE.len(), at in 0..EXAMPLE.len(), junk in "[\\[\\]{}=\"'#,.\\\\a-z0-9 \\n\u{e9}]{0,12}") {
        let mut text: String = EXAMPLE.chars().take(cut.max(1)).collect();
        let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.insert_str(at, &junk);
        if let Err(e) = check(Path::new("/nonexistent/x.toml"), &text, None) {
            proptest::prop_assert!(!e.render(false).is_empty());
        }
    }
}
