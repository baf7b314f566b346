//! The command line as a user has it: the built binary, real files, real exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// Runs `baton` with these arguments.
fn baton(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_baton")).args(args).env_remove("BATON_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn keygen(path: &Path) -> Output {
    baton(&["keygen", path.to_str().unwrap()])
}

/// A directory with a good key, and several bad ones.
fn keys() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    assert!(keygen(&dir.path().join("cluster.key")).status.success());
    let good = fs::read_to_string(dir.path().join("cluster.key")).unwrap();
    for (name, content, mode) in [
        ("open.key", good.as_str(), 0o644),
        ("short.key", &format!("baton cluster key 1\n{}\n", "ab".repeat(16)), 0o600),
        ("garbage.key", "\u{1}\u{2}\u{3}", 0o600),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    dir
}

/// A report without its line breaks and frames, so that a sentence can be looked for.
fn flat(report: &str) -> String {
    let words = report.split_whitespace().filter(|w| !matches!(*w, "|" | "│" | "x" | "×" | "!" | "⚠"));
    words.collect::<Vec<_>>().join(" ")
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(name)
}

#[test]
fn every_bad_configuration_is_refused_with_exactly_its_mistakes() {
    let dir = keys();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli_bad");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    for source in files {
        let content = fs::read_to_string(&source).unwrap();
        let file = dir.path().join(source.file_name().unwrap());
        // The report quotes lines of the file: without the expectations in them, they cannot meet themselves.
        let bare: Vec<&str> = content.lines().map(|l| l.split("#~").next().unwrap()).collect();
        fs::write(&file, bare.join("\n")).unwrap();
        let out = baton(&["check", file.to_str().unwrap()]);
        let report = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{}\n{report}", source.display());
        assert!(out.stdout.is_empty());
        let blocks: Vec<&str> = report.split("\nError: ").collect();
        // What stands after `#~` in a line is found wrong in that line, and nothing else anywhere.
        let mut expected = 0;
        for (number, line) in content.lines().enumerate() {
            for message in line.split("#~").skip(1).map(str::trim) {
                expected += 1;
                let place = format!("{}:{}:", file.display(), number + 1);
                assert!(
                    blocks.iter().any(|b| b.contains(&place) && flat(b).contains(message)),
                    "{}: no \"{message}\" at {place} in\n{report}",
                    source.display()
                );
            }
        }
        let head = format!("{}: {expected} mistake{} ", file.display(), if expected == 1 { "" } else { "s" });
        assert!(flat(&report).contains(&head), "{}: not \"{head}\" in\n{report}", source.display());
        assert_eq!(
            report.matches("help: ").count(),
            expected,
            "{}: each says what would be right\n{report}",
            source.display()
        );
        // The agent refuses the same file in the same words.
        let agent = baton(&["agent", "--config", file.to_str().unwrap()]);
        assert_eq!((agent.status.code(), text(&agent.stderr)), (Some(2), report), "{}", source.display());
    }
}

#[test]
fn the_shipped_examples_are_good() {
    let dir = keys();
    let key = dir.path().join("cluster.key");
    for example in ["lb-pair.toml", "haproxy-pair.toml"] {
        let content =
            fs::read_to_string(shipped(example)).unwrap().replace("/etc/baton/cluster.key", key.to_str().unwrap());
        let file = dir.path().join("baton.toml");
        fs::write(&file, content).unwrap();
        let out = baton(&["check", file.to_str().unwrap(), "--name", "lb2"]);
        assert_eq!(out.status.code(), Some(0), "{example}: {}", text(&out.stderr));
        assert!(out.stderr.is_empty(), "{example}: {}", text(&out.stderr));
        assert!(text(&out.stdout).contains("is good: cluster lb, 3 voters, 1 groups with 2 VIPs; this machine is lb2"));
    }
}

#[test]
fn an_even_number_of_voters_is_only_warned_of() {
    let dir = keys();
    let key = dir.path().join("cluster.key");
    let fourth =
        "\n[[voter]]\nid = 4\nname = \"second\"\nrole = \"arbiter\"\nbackplane = [\"10.0.0.4\", \"10.1.0.4\"]\n";
    let content =
        fs::read_to_string(shipped("lb-pair.toml")).unwrap().replace("/etc/baton/cluster.key", key.to_str().unwrap());
    let file = dir.path().join("baton.toml");
    fs::write(&file, content + fourth).unwrap();
    let out = baton(&["check", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0));
    assert!(
        flat(&text(&out.stderr)).contains("an even number of voters (4) survives no more deaths than 3"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let dir = keys();
    let binary = dir.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe, 0, 1]).unwrap();
    let huge = dir.path().join("huge.toml");
    fs::write(&huge, "#".repeat(5 << 20)).unwrap();
    let empty = dir.path().join("empty.toml");
    fs::write(&empty, "").unwrap();
    for (path, words) in [
        (binary.as_path(), "it is not UTF-8 text"),
        (&huge, "it is larger than 4 MiB"),
        (&empty, "the file has no section [cluster]"),
        (dir.path(), "it is not a regular file"),
        (Path::new("/nonexistent/baton.toml"), "it cannot be read"),
    ] {
        let out = baton(&["check", path.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(2));
        assert!(flat(&text(&out.stderr)).contains(words), "{}", text(&out.stderr));
    }
}

#[test]
fn keygen_makes_a_private_key_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.key");
    assert_eq!(keygen(&path).status.code(), Some(0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let first = fs::read(&path).unwrap();
    let again = keygen(&path);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already and is not overwritten"));
    assert_eq!(fs::read(&path).unwrap(), first);
    // A link to nowhere is not followed either.
    let link = dir.path().join("link.key");
    std::os::unix::fs::symlink(dir.path().join("target"), &link).unwrap();
    assert_eq!(keygen(&link).status.code(), Some(1));
    assert!(!dir.path().join("target").exists());
    let other = dir.path().join("other.key");
    assert!(keygen(&other).status.success());
    assert_ne!(fs::read(&other).unwrap(), first, "keys are random");
}

#[test]
fn without_an_agent_the_exit_code_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    for command in [&["status"][..], &["events"], &["move", "web", "lb2"], &["standby", "lb1"], &["online", "lb1"]] {
        let args = [command, &["--socket", socket.to_str().unwrap()]].concat();
        let out = baton(&args);
        assert_eq!(out.status.code(), Some(4), "{args:?}");
        assert!(text(&out.stderr).contains("no agent answers on"), "{}", text(&out.stderr));
    }
}

#[test]
fn wrong_usage_is_code_2_and_help_is_code_0() {
    assert_eq!(baton(&["move", "web"]).status.code(), Some(2));
    assert_eq!(baton(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(baton(&[]).status.code(), Some(2));
    let help = baton(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["agent", "status", "events", "move", "standby", "online", "check", "keygen", "Exit codes"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
}
