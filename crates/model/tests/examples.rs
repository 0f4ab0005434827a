//! Every example is valid, and survives being printed and read again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use catena_model::resource::{self, Document, Source};

/// The resources of each folder of examples.
fn examples() -> impl Iterator<Item = (PathBuf, Vec<Source>)> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let folders = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|path| path.is_dir()).map(|folder| {
        let sources = sources(&folder);
        (folder, sources)
    })
}

fn sources(folder: &Path) -> Vec<Source> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());
    let read =
        |path: &PathBuf| Source::new(path.display().to_string(), std::fs::read_to_string(path).unwrap());
    files.iter().map(read).collect()
}

#[test]
fn every_example_is_valid() {
    let mut count = 0;
    for (folder, sources) in examples() {
        let model = resource::load(&sources).unwrap_or_else(|found| {
            panic!("{}", found.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect::<String>())
        });
        assert!(!model.chains.is_empty() && !model.sites.is_empty(), "{}", folder.display());
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let all: Vec<Source> = examples().flat_map(|(_, sources)| sources).collect();
    let (documents, _) = resource::parse(&all);
    for document in &documents {
        let yaml = serde_saphyr::to_string(document).unwrap();
        let json = serde_json::to_string_pretty(document).unwrap();
        for text in [yaml, json] {
            let (again, found) = resource::parse(&[Source::new("printed", &*text)]);
            assert_eq!(found, [], "{text}");
            let again: Vec<_> = again.iter().map(|Document { resource, .. }| resource).collect();
            assert_eq!(again, [&document.resource], "{text}");
        }
    }
}
