//! The planner against files: each case has a world, what happens to it, and the plan that is expected; each says what it shows.
//!
//! `BATON_BLESS=1 cargo test -p baton --test placement` writes what is planned into the files; read the difference before it is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod case;
mod property;

use std::{collections::BTreeMap, fs, path::PathBuf};

use case::Case;

fn files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/placement/cases");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// The lines that differ, `-` expected and `+` planned.
fn difference(expected: &str, planned: &str) -> String {
    let lines = |text: &'static str, of: &str, others: &str| {
        let others: Vec<&str> = others.lines().collect();
        of.lines().filter(|l| !others.contains(l)).map(|l| format!("  {text} {l}\n")).collect::<String>()
    };
    let found = lines("-", expected, planned) + &lines("+", planned, expected);
    if found.is_empty() { "  the same lines in another order\n".into() } else { found }
}

#[test]
fn every_case_is_planned_as_expected() {
    let bless = std::env::var_os("BATON_BLESS").is_some();
    let mut failed = String::new();
    let files = files();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let case = Case::read(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let planned = case.planned();
        if planned != case.expected && bless {
            let head = text.split("\nexpect = ").next().unwrap().trim_end();
            fs::write(file, format!("{head}\nexpect = '''\n{planned}'''\n")).unwrap();
        } else if planned != case.expected {
            let name = file.file_name().unwrap().to_string_lossy();
            failed += &format!("{name}: {}\n{}", case.reason, difference(&case.expected, &planned));
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
    assert!(files.len() >= 100, "{} cases", files.len());
}

#[test]
fn every_case_has_a_reason_of_its_own_and_settles() {
    let mut reasons = BTreeMap::new();
    for file in files() {
        let case = Case::read(&fs::read_to_string(&file).unwrap()).unwrap();
        let words = case.reason.split_whitespace().count();
        assert!(words >= 5 && case.reason.ends_with('.'), "{}: \"{}\"", file.display(), case.reason);
        if let Some(other) = reasons.insert(case.reason.clone(), file.clone()) {
            panic!("{} and {} have one reason", file.display(), other.display());
        }
        if case.settles() {
            let plan = baton::cluster::placement::plan(&case.world);
            let again = baton::cluster::placement::plan(&case.world.after(&plan));
            assert!(again.steps.is_empty(), "{}: then {:#?}", file.display(), again.steps);
        }
    }
}
