//! What others do to elements, and how soon the controller's verdict follows. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod lab;

use lab::printed;

/// The paper's chain is there, and a daemon. `is VERDICT` asks for the chain's verdict, `soon VERDICT` waits for it.
const BEGIN: &str = r#"
"$CATENA" serve 2> /dev/null & daemon=$!
until "$CATENA" status > /dev/null 2>&1; do sleep 0.05; done
"$CATENA" apply -f network.yaml -f functions.yaml -f tenants.yaml -f chain.yaml > /dev/null
is() { "$CATENA" status -o json | tr -d '\n' | grep -q "\"verdict\": *\"$1\""; }
now() { date +%s%3N; }
soon() { begin="$(now)"; until is "$1"; do [ $(($(now) - begin)) -lt 20000 ]; done; }
soon proven
"#;

const END: &str = r#"kill "$daemon""#;

/// Somebody's rule leads into a table of theirs, which is empty at first. Prints after how many milliseconds the verdict
/// was another one, each time that there is something else in the table.
const ROUTE: &str = r#"
ip -n access-a rule add from 172.16.1.0/24 lookup 100 priority 100
# Until the rule has been looked at, too.
sleep 1
for deed in 'add violated' 'del proven'; do
  set -- $deed
  ip -n access-a route "$1" 198.51.100.0/24 via 203.0.113.1 table 100
  soon "$2"
  echo "$2 $(($(now) - begin))"
done
"#;

/// A port of the switch is set down, then the end of its cable that is the function's. Says what the verdict was each time.
const LINK: &str = r#"
for end in 'br-int fw1-in' 'fw-1 in'; do
  set -- $end
  ip -n "$1" link set "$2" down
  soon violated
  "$CATENA" status -o json | tr -d '\n' | grep -o '"why": *"[^"]*"'
  verified="$("$CATENA" verify --observed)" || echo "verify says $?"
  echo "$verified" | grep -m 1 -o 'no-black-hole: .*'
  # What is to be done has not changed, and may be asked for again.
  "$CATENA" plan -f chain.yaml > /dev/null
  ip -n "$1" link set "$2" up
  soon proven
done
"$CATENA" events | grep -c 'port fw1-in of br-int is down'
"#;

/// Sources are hidden where the Internet is, then at the gateway, then before the functions. Says what the verdict was each time,
/// who the answering side takes the customer for, and how many packets have come back through the web filter.
const NAT: &str = r#"
on() { netns="/run/netns/$1"; shift; nsenter --net="$netns" "$@"; }
down() { "$CATENA" get counters | awk '/web-1 +acme-web.* down / { print $(NF - 1) }'; }
for end in 'core inet' 'gateway wan' 'qrouter-1234 qr-abc'; do
  set -- $end
  soon proven
  on "$1" nft "add table ip nat; add chain ip nat leaving { type nat hook postrouting priority 100; }"
  on "$1" nft "add rule ip nat leaving oifname \"$2\" masquerade"
  case "$1" in qrouter-*) soon undecided ;; *) sleep 2 ;; esac
  "$CATENA" verify --observed | head -n 1 | cut -d : -f 1
  on alice curl --silent --max-time 5 http://198.51.100.10/ | grep -o 'You are .*' || echo 'no answer'
  down
  on "$1" nft delete table ip nat
done
"#;

#[test]
fn a_route_in_somebodys_own_table_changes_the_verdict_soon() {
    let said = run(ROUTE);
    let took: Vec<(&str, u32)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(verdict, milliseconds)| (verdict, milliseconds.parse().unwrap()))
        .collect();
    let [("violated", broken), ("proven", repaired)] = took[..] else { panic!("{said}") };
    // A third of a second, if nothing else keeps the machine busy; the next look at everything may be a minute away.
    assert!(broken < 5000 && repaired < 5000, "{broken} ms, {repaired} ms");
}

/// It is said which port, and that the packets are lost; when it is up again, all is well.
#[test]
fn a_link_that_goes_changes_the_verdict_until_it_is_back() {
    let said = run(LINK);
    let lines: Vec<&str> = said.lines().collect();
    let [why, exit, found, why_far, exit_far, found_far, told] = lines[..] else { panic!("{said}") };
    for line in [why, found, why_far, found_far] {
        assert!(line.contains("port fw1-in of br-int is down"), "{said}");
    }
    assert_eq!([exit, exit_far], ["verify says 1"; 2], "{said}");
    assert!(told.parse::<usize>().unwrap() >= 2, "{said}");
}

/// Behind the functions it is no matter who the customer is taken for. Before them it is.
#[test]
fn addresses_that_are_translated_are_seen_where_they_matter() {
    let said = run(NAT);
    let lines: Vec<&str> = said.lines().collect();
    let [first, outside, once, second, gateway, twice, third, ..] = lines[..] else { panic!("{said}") };
    assert_eq!((first, outside), ("proven", "You are 198.51.100.1."), "{said}");
    assert_eq!((second, gateway), ("proven", "You are 203.0.113.14."), "{said}");
    let [once, twice] = [once, twice].map(|count| count.parse::<u64>().unwrap());
    assert!(0 < once && once < twice, "{said}");
    assert_eq!(third, "undecided", "{said}");
}

/// Runs a script in a lab with the paper's network; what it prints.
fn run(script: &str) -> String {
    let output = lab::run(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper"),
        &format!("{BEGIN}{script}{END}"),
    );
    assert!(output.status.success(), "{}", printed(&output));
    String::from_utf8(output.stdout).unwrap()
}
