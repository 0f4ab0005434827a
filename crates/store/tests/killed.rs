//! A writer that is killed again and again, at any moment, loses nothing that it reported and leaves nothing half.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use catena_store::{Embedded, Revision, Store, Write};

const DEATHS: u64 = 12;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::args().skip_while(|argument| argument != "--write").nth(1) {
        Some(path) => runtime.block_on(write_for_ever(Path::new(&path))),
        None => {
            runtime.block_on(survives_being_killed());
            println!("survives_being_killed: ok, {DEATHS} deaths");
            ExitCode::SUCCESS
        }
    }
}

/// Every transaction writes the same number to two keys and its own key, and is reported once it is made.
async fn write_for_ever(path: &Path) -> ExitCode {
    let store = Embedded::open(path).await.unwrap();
    let mut number = store.revision().await.unwrap().0;
    loop {
        number += 1;
        let text = number.to_string();
        let mut writes = vec![
            Write::put("left", text.clone()),
            Write::put("right", text.clone()),
            Write::put(format!("all/{number:08}"), vec![b'x'; (number as usize * 37) % 5000]),
        ];
        if number > 40 {
            writes.push(Write::delete(format!("all/{:08}", number - 40)));
        }
        let revision = store.transact(writes).await.unwrap();
        println!("{revision}");
    }
}

async fn survives_being_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let mut reported = 0;
    for death in 0..DEATHS {
        let last = report_of_a_short_life(&path, Duration::from_millis(15 + 13 * death));
        reported = reported.max(last);
        let store = Embedded::open(&path).await.unwrap();
        let revision = check(&store).await;
        assert!(revision >= reported, "reported {reported}, found {revision}");
        // At most the one transaction that was being made is there without having been reported.
        assert!(revision <= reported + 1, "reported {reported}, found {revision}");
        reported = revision;
    }
    assert!(reported > DEATHS, "the writers hardly wrote: {reported}");
}

/// Starts a writer, kills it (SIGKILL) that long after its first report, and says what it reported last.
fn report_of_a_short_life(path: &Path, life: Duration) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .arg("--write")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reports = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut last = reports.next().expect("the writer reports").unwrap();
    std::thread::sleep(life);
    writer.kill().unwrap();
    for report in reports {
        last = report.unwrap();
    }
    writer.wait().unwrap();
    last.parse().unwrap()
}

async fn check(store: &Embedded) -> u64 {
    let Revision(revision) = store.revision().await.unwrap();
    let text = async |key| String::from_utf8(store.get(key).await.unwrap().unwrap().value).unwrap();
    assert_eq!(text("left").await, revision.to_string());
    assert_eq!(text("right").await, revision.to_string());
    let all = store.list("all/").await.unwrap().entries;
    let first = revision.saturating_sub(39).max(1);
    let found: Vec<u64> = all.iter().map(|entry| entry.revision.0).collect();
    assert_eq!(found, (first..=revision).collect::<Vec<_>>());
    for entry in all {
        assert_eq!(entry.key, format!("all/{:08}", entry.revision));
        assert_eq!(entry.value.len() as u64, entry.revision.0 * 37 % 5000);
    }
    revision
}
