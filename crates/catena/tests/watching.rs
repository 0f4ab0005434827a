//! What others do to elements, and how soon the controller's verdict follows. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Stdio};

/// Somebody's rule leads into a table of theirs, which is empty at first. Prints after how many milliseconds the verdict
/// was another one, each time that there is something else in the table.
const SCRIPT: &str = r#"
"$CATENA" serve 2> /dev/null & daemon=$!
until "$CATENA" status > /dev/null 2>&1; do sleep 0.05; done
"$CATENA" apply -f network.yaml -f functions.yaml -f tenants.yaml -f chain.yaml > /dev/null
ip -n access-a rule add from 172.16.1.0/24 lookup 100 priority 100
is() { "$CATENA" status -o json | tr -d ' \n' | grep -q "\"verdict\":\"$1\""; }
now() { date +%s%3N; }
until is proven; do sleep 0.05; done
# Until the rule has been looked at, too.
sleep 1
for deed in 'add violated' 'del proven'; do
  set -- $deed
  begin="$(now)"
  ip -n access-a route "$1" 198.51.100.0/24 via 203.0.113.1 table 100
  until is "$2"; do [ $(($(now) - begin)) -lt 20000 ]; done
  echo "$2 $(($(now) - begin))"
done
kill "$daemon"
"#;

#[test]
fn a_route_in_somebodys_own_table_changes_the_verdict_soon() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper");
    let catena = env!("CARGO_BIN_EXE_catena");
    let mut lab = Command::new(catena);
    lab.args(["lab", "run", "-f", "network.yaml", "--", "sh", "-e", "-c", SCRIPT]).current_dir(folder);
    lab.env("CATENA", catena).env_remove("RUST_LOG").stdin(Stdio::null());
    let output = lab.output().unwrap();
    let [said, told] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{}\n{said}\n{told}", output.status);
    let took: Vec<(&str, u32)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(verdict, milliseconds)| (verdict, milliseconds.parse().unwrap()))
        .collect();
    let [("violated", broken), ("proven", repaired)] = took[..] else { panic!("{said}\n{told}") };
    // A third of a second, if nothing else keeps the machine busy; the next look at everything may be a minute away.
    assert!(broken < 5000 && repaired < 5000, "{broken} ms, {repaired} ms");
}
