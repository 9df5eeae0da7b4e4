//! What no compiler checks of the files in this repository.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Read by the logging library itself, not by `src/config.rs`.
const NOT_OURS: [&str; 1] = ["RUST_LOG"];
/// Pauses once: spreads readers over the second in which a swap is tried, and
/// looks again at another process, until a deadline.
const MAY_PAUSE: [&str; 2] = [
    "projections/tests/database/rebuild.rs",
    "tests/api/crash.rs",
];

/// Files that are tracked, or will be with the next `git add`, by their ends.
fn files(ends: &[&str]) -> Vec<(String, String)> {
    let mut git = Command::new("git");
    git.args(["-C", ROOT, "ls-files", "--cached", "--others"]);
    let listed = git.arg("--exclude-standard").output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let wanted = |path: &&str| ends.iter().any(|end| path.ends_with(end));
    // A file that was deleted is listed until the deletion is committed.
    let read = |path: &str| Some((path.to_owned(), text(path)?));
    let found: Vec<_> = listed.lines().filter(wanted).filter_map(read).collect();
    assert!(!found.is_empty(), "no file ends with {ends:?}");
    found
}

fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(ROOT).join(path)).ok()
}

/// Nothing is wrong, or all that is wrong.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_line_ends_with_a_space_and_no_rust_has_tabs() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs", ".sql", ".md", ".sh"]) {
        for (at, line) in (1..).zip(text.lines()) {
            if line.ends_with([' ', '\t', '\r']) {
                wrong.push(format!("{path}:{at}: ends with white space"));
            }
            if path.ends_with(".rs") && line.contains('\t') {
                wrong.push(format!("{path}:{at}: a tab"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in files(&[".md"]) {
        let dir = Path::new(ROOT).join(&path).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap();
            if !target.is_empty() && !target.contains(':') && !dir.join(target).exists() {
                wrong.push(format!("{path}: there is no {target}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_make_target_that_people_are_told_of_exists() {
    let makefile = text("Makefile").unwrap();
    let exists = |target: &str| {
        let rule = format!("{target}:");
        makefile.lines().any(|line| line.starts_with(&rule))
    };
    let mut wrong = Vec::new();
    for path in ["README.md", "CONTRIBUTING.md", "docs/OPERATIONS.md"] {
        let text = text(path).unwrap();
        // In code only: at the start of a line of a block, or after a backtick.
        for line in text.lines() {
            let starts = line.strip_prefix("make ").into_iter();
            for command in starts.chain(line.split("`make ").skip(1)) {
                let word = |c: char| c.is_ascii_lowercase() || c == '-';
                let target = command.split(|c| !word(c)).next().unwrap();
                if !target.is_empty() && !exists(target) {
                    wrong.push(format!("{path}: there is no `make {target}`"));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_setting_is_in_the_code_the_example_and_the_manual() {
    let config = text("src/config.rs").unwrap();
    let code: BTreeSet<&str> = config
        .split("env = \"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .chain(NOT_OURS)
        .collect();
    let example = text(".env.example").unwrap();
    let example: BTreeSet<&str> = example
        .lines()
        .filter_map(|line| line.trim_start_matches('#').split_once('='))
        .map(|(name, _)| name)
        .filter(|name| is_setting(name))
        .collect();
    let manual = text("docs/OPERATIONS.md").unwrap();
    // The table of the section "Settings".
    let (_, section) = manual.split_once("\n## Settings\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let manual: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .flat_map(|row| row.split(" |").next().unwrap().split('`'))
        .filter(|name| is_setting(name))
        .collect();
    assert_eq!(example, code, ".env.example and src/config.rs");
    assert_eq!(manual, code, "docs/OPERATIONS.md and src/config.rs");
}

fn is_setting(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_uppercase() || c == '_';
    !name.is_empty() && name.chars().all(letters)
}

#[test]
fn every_migration_has_a_number_of_its_own() {
    let files = files(&[".sql"]);
    let names = files
        .iter()
        .filter_map(|(path, _)| path.strip_prefix("migrations/"));
    let mut taken = BTreeSet::new();
    for name in names {
        let (number, _) = name.split_once('_').unwrap();
        assert!(number.len() == 4 && number.parse::<u32>().is_ok(), "{name}");
        assert!(taken.insert(number.to_owned()), "{number} is taken: {name}");
    }
    assert!(!taken.is_empty());
}

#[test]
fn no_test_is_skipped_and_none_sleeps_for_luck() {
    // In two parts, so that this file is none of those it speaks of.
    let banned = [concat!("#[ign", "ore"), concat!("sle", "ep(")];
    let is_test =
        |path: &str| path.split('/').any(|part| part == "tests") || path.ends_with("tests.rs");
    let mut wrong = Vec::new();
    for (path, text) in files(&[".rs"]) {
        // Test modules within a file begin with their attribute, and are last.
        let tested = if is_test(&path) {
            text.as_str()
        } else {
            text.split_once("#[cfg(test)]\nmod tests {")
                .map_or("", |it| it.1)
        };
        let skip = usize::from(MAY_PAUSE.contains(&path.as_str()));
        let counted = |word: &&&str| tested.matches(**word).count() > skip;
        let found = banned.iter().filter(counted);
        wrong.extend(found.map(|word| format!("{path}: {word}")));
    }
    assert_none(&wrong);
}
