//! Which crate may depend on which: the table of rooms in ARCHITECTURE.md, enforced.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

/// A crate of the workspace, as far as the rules look at it.
#[derive(Clone, Default)]
struct Crate {
    /// Its folder, as the table names it.
    room: String,
    /// Rooms it depends on, in whatever way.
    rooms: BTreeSet<String>,
    /// Crates from outside that its library or binary is built with.
    outside: BTreeSet<String>,
}

/// The pure middle: no I/O, no clock, no randomness, no async.
const PURE: [&str; 4] = ["crates/model", "crates/render", "crates/verify", "crates/plan"];
/// What pure crates may use from outside: data types, reading and writing text, errors.
const PURE_OUTSIDE: [&str; 8] =
    ["granit-parser", "ipnet", "serde", "serde-saphyr", "serde_json", "smallvec", "strsim", "thiserror"];
/// What would make the middle impure, as it would stand in the source.
const IMPURE_SOURCE: [&str; 8] =
    ["async fn", ".await", "std::fs", "std::io", "std::process", "std::env", "SystemTime", "Instant::now"];
/// What a room must not know, beyond the order of the table.
const MUST_NOT_KNOW: [(&str, &[&str]); 4] = [
    ("crates/lab", &["crates/control", "crates/api", "crates/store"]),
    ("crates/replay", &["crates/control", "crates/api", "crates/store"]),
    ("crates/store", &["crates/model"]),
    ("crates/plan", &["crates/driver"]),
];
const HTTP: [&str; 5] = ["axum", "hyper", "hyper-util", "tower", "http-body-util"];
const NAMES_THAT_SAY_NOTHING: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

fn violations(order: &[String], crates: &[Crate]) -> Vec<String> {
    let place = |room: &str| {
        // A driver that has no row of its own stands where the drivers stand.
        let driver =
            room.starts_with("drivers/").then(|| order.iter().position(|r| r.starts_with("drivers/")));
        order.iter().position(|r| r == room).or(driver.flatten())
    };
    let mut found = Vec::new();
    for this in crates {
        let room = &this.room;
        let Some(own_place) = place(room) else {
            found.push(format!("{room} is not in the table of ARCHITECTURE.md"));
            continue;
        };
        for other in &this.rooms {
            let below = place(other).is_none_or(|other_place| other_place > own_place);
            if below {
                found.push(format!("{room} depends on {other}, which is not above it in the table"));
            }
            if room.starts_with("drivers/")
                && !["crates/model", "crates/driver", "crates/testbed"].contains(&other.as_str())
            {
                found.push(format!(
                    "{room} depends on {other}: a driver knows model and driver alone, its tests the testbed"
                ));
            }
            if other.starts_with("drivers/") && room != "crates/catena" {
                found.push(format!("{room} depends on {other}: only crates/catena names concrete drivers"));
            }
            for (who, what) in MUST_NOT_KNOW {
                if room == who && what.contains(&other.as_str()) {
                    found.push(format!("{room} must not know {other}"));
                }
            }
        }
        for name in &this.outside {
            if PURE.contains(&room.as_str()) && !PURE_OUTSIDE.contains(&name.as_str()) {
                found.push(format!("{room} is pure, but uses {name}"));
            }
            if HTTP.contains(&name.as_str()) && !["crates/api", "crates/catena"].contains(&room.as_str()) {
                found.push(format!("{room} uses {name}: HTTP is the business of crates/api"));
            }
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The first column of the table of rooms, where it names a crate.
fn order() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(room, _)| room.to_owned())
        .filter(|room| room.starts_with("crates/") || room.starts_with("drivers/") || room == "xtask")
        .collect()
}

fn crates() -> Vec<Crate> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
    let room_of: BTreeMap<String, String> = metadata
        .packages
        .iter()
        .map(|package| {
            let folder = package.manifest_path.parent().unwrap();
            let room = folder.strip_prefix(&metadata.workspace_root).unwrap();
            (package.name.to_string(), room.to_string())
        })
        .collect();
    metadata
        .packages
        .iter()
        .map(|package| Crate {
            room: room_of[package.name.as_str()].clone(),
            rooms: package.dependencies.iter().filter_map(|d| room_of.get(&d.name)).cloned().collect(),
            outside: package
                .dependencies
                .iter()
                .filter(|d| {
                    d.kind == cargo_metadata::DependencyKind::Normal && !room_of.contains_key(&d.name)
                })
                .map(|d| d.name.clone())
                .collect(),
        })
        .collect()
}

/// All files below `folder` whose names end in `ending`.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_crate_keeps_to_the_table() {
    let found = violations(&order(), &crates());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_row_of_the_table_is_a_crate() {
    let rooms: BTreeSet<String> = crates().into_iter().map(|this| this.room).collect();
    for room in order() {
        assert!(rooms.contains(&room), "ARCHITECTURE.md names {room}, which is no crate of the workspace");
    }
}

#[test]
fn each_broken_rule_is_found() {
    let with = |room: &str, rooms: &[&str], outside: &[&str]| Crate {
        room: room.to_owned(),
        rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
        outside: outside.iter().map(|name| (*name).to_owned()).collect(),
    };
    for (broken, says) in [
        (with("crates/model", &["crates/plan"], &[]), "not above"),
        (with("crates/render", &[], &["tokio"]), "pure"),
        (with("drivers/linux", &["drivers/steer"], &[]), "model and driver alone"),
        (with("drivers/ovs", &["crates/render"], &[]), "model and driver alone"),
        (with("crates/control", &["drivers/linux"], &[]), "names concrete drivers"),
        (with("crates/control", &[], &["axum"]), "HTTP"),
        (with("crates/lab", &["crates/control"], &[]), "must not know"),
        (with("crates/extra", &[], &[]), "not in the table"),
    ] {
        let found = violations(&order(), std::slice::from_ref(&broken));
        assert!(found.iter().any(|text| text.contains(says)), "{says}: {found:?}");
    }
}

#[test]
fn the_middle_reads_no_clock_and_does_no_io() {
    for room in PURE {
        let sources = files(&root().join(room).join("src"), ".rs");
        assert!(!sources.is_empty(), "{room} has no sources");
        for path in sources {
            let text = std::fs::read_to_string(&path).unwrap();
            for (number, line) in text.lines().enumerate() {
                let impure = IMPURE_SOURCE.iter().find(|impure| line.contains(*impure));
                let comment = line.trim_start().starts_with("//");
                assert!(
                    impure.is_none() || comment,
                    "{}:{}: {room} is pure, but here is `{}`",
                    path.display(),
                    number + 1,
                    impure.unwrap_or(&""),
                );
            }
        }
    }
}

#[test]
fn every_crate_opens_with_what_it_is_for() {
    for this in crates() {
        let folder = root().join(&this.room).join("src");
        let entry =
            ["lib.rs", "main.rs"].iter().map(|name| folder.join(name)).find(|path| path.exists()).unwrap();
        let text = std::fs::read_to_string(&entry).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with a paragraph (//!)", entry.display());
    }
}

#[test]
fn no_name_says_nothing() {
    for top in ["crates", "drivers", "xtask"] {
        for path in files(&root().join(top), "") {
            let relative = path.strip_prefix(root()).unwrap();
            let bad = relative.iter().map(|part| part.to_string_lossy()).find(|part| {
                let stem = part.split('.').next().unwrap_or_default();
                NAMES_THAT_SAY_NOTHING.contains(&stem)
            });
            assert!(bad.is_none(), "{}: name it after what it is for", relative.display());
        }
    }
}
