//! The examples of docs/resources are good, and mean what they say.

use std::{fs, path::Path};

use super::*;
use crate::config::{ClusterKey, Config, check as check_file};

const HEAD: &str = "[cluster]\nname = \"c\"\nkey_file = \"cluster.key\"\n[this]\nname = \"a\"\n\
    [[voter]]\nid = 1\nname = \"a\"\nrole = \"node\"\nbackplane = [\"10.0.0.1\"]\nfront = [\"eth0\"]\n\
    [[voter]]\nid = 2\nname = \"b\"\nrole = \"node\"\nbackplane = [\"10.0.0.2\"]\nfront = [\"eth0\"]\n\
    [[voter]]\nid = 3\nname = \"c\"\nrole = \"arbiter\"\nbackplane = [\"10.0.0.3\"]\n\
    [[group]]\nname = \"g\"\n";

fn load(resources: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    ClusterKey::generate(&dir.path().join("cluster.key")).unwrap();
    let text = format!("{HEAD}{resources}");
    match check_file(&dir.path().join("x.toml"), &text, None) {
        Ok(loaded) => loaded.config,
        Err(e) => panic!("{}\n{resources}", e.render(false)),
    }
}

fn kinds(resources: &str) -> Vec<Kind> {
    let config = load(resources);
    config.shared.groups.values().next().unwrap().resources.iter().map(|r| r.kind.clone()).collect()
}

/// The TOML in a page of the documentation.
fn examples(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/resources").join(page);
    let text = fs::read_to_string(&path).unwrap();
    text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_examples_of_the_documentation_are_good() {
    for (page, word) in
        [("script.md", "script"), ("process.md", "process"), ("systemd.md", "systemd"), ("check.md", "check")]
    {
        let examples = examples(page);
        assert!(!examples.is_empty(), "{page}");
        for example in examples {
            assert!(kinds(&example).iter().any(|kind| kind.word() == word), "{page}");
        }
    }
}

#[test]
fn a_process_is_what_its_keys_say_and_its_defaults_are_those_of_the_documentation() {
    let all = "[[group.resource]]\nname = \"p\"\nkind = \"process\"\ncommand = [\"/d\", \"-x\"]\nuser = \"u\"\ngroup = \"h\"\n\
               directory = \"/v\"\nstop_signal = \"SIGINT\"\nkill_after = \"5s\"\nready = { tcp = \"[::1]:5432\" }\nlog = \"/l\"\n\
               memory = \"1GiB\"\npids = 100\nenvironment = { A = \"b\" }\n\
               [[group.resource]]\nname = \"q\"\nkind = \"process\"\ncommand = \"/d\"\n";
    let [Kind::Process(first), Kind::Process(second)] = &kinds(all)[..] else { panic!("two") };
    let expected = Process {
        command: vec!["/d".into(), "-x".into()],
        environment: [("A".into(), "b".into())].into(),
        user: Some("u".into()),
        group: Some("h".into()),
        directory: "/v".into(),
        stop_signal: libc::SIGINT,
        kill_after_ns: Some(5_000_000_000),
        ready: Some(Ready::Tcp("[::1]:5432".into())),
        log: Some("/l".into()),
        memory: Some(1 << 30),
        pids: Some(100),
    };
    assert_eq!(*first, expected);
    let defaults = Process {
        command: vec!["/d".into()],
        environment: Default::default(),
        user: None,
        group: None,
        directory: "/".into(),
        stop_signal: libc::SIGTERM,
        kill_after_ns: None,
        ready: None,
        log: None,
        memory: None,
        pids: None,
    };
    assert_eq!(*second, defaults);
}

#[test]
fn a_url_is_taken_apart() {
    let page = |url: &str| {
        let resource = format!("[[group.resource]]\nname = \"c\"\nkind = \"check\"\nhttp = \"{url}\"\nattempts = 5\n");
        match load(&resource).shared.groups.values().next().unwrap().resources[0].clone() {
            crate::config::Resource {
                kind: Kind::Check(Check { probe: Probe::Http(page), .. }),
                monitor_timeout_ns,
                ..
            } => {
                // Five attempts of a second, a second apart.
                assert_eq!(monitor_timeout_ns, 11 * SECOND);
                (page.address, page.host, page.path)
            }
            other => panic!("{other:?}"),
        }
    };
    let parts = |a: &str, h: &str, p: &str| (a.to_owned(), h.to_owned(), p.to_owned());
    assert_eq!(page("http://web.example/up?x=1#top"), parts("web.example:80", "web.example", "/up?x=1"));
    assert_eq!(page("http://192.0.2.1:8080"), parts("192.0.2.1:8080", "192.0.2.1:8080", "/"));
    assert_eq!(page("http://[2001:db8::1]/"), parts("[2001:db8::1]:80", "[2001:db8::1]", "/"));
    assert_eq!(page("http://[2001:db8::1]:81?q"), parts("[2001:db8::1]:81", "[2001:db8::1]:81", "/?q"));
}
