//! `examples/insertion`, as it stands: real packets through a function of every kind of insertion. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod lab;

use std::collections::BTreeMap;

use serde_json::Value;

use lab::printed;

/// What is said and seen in the example's network, from the lines that begin with the word before the colon.
const SCRIPT: &str = r#"
on() { netns="/run/netns/$1"; shift; nsenter --net="$netns" "$@"; }
ask() { on user curl --silent --max-time 5 --globoff "$1"; }
# Whether a packet that the filter describes comes to a node, while somebody asks.
sees() {
  node="$1"; port="$2"; shift 2
  on "$node" timeout 10 tcpdump --immediate-mode -n -c 1 -i "$port" -w /dev/null "$@" 2> "$scratch/$node" & watcher=$!
  until grep -q 'listening on' "$scratch/$node" 2> /dev/null; do sleep 0.05; done
  ask http://198.51.100.10/ > "$scratch/answer"
  wait "$watcher" && echo "seen: $node"
}
scratch="$(mktemp -d)"
"$CATENA" apply --local -f . > "$scratch/applied"
for url in 198.51.100.10 '[2001:db8:ffff::10]' 198.51.100.10:8080 198.51.100.10:25; do
  echo "answer: $(ask "http://$url/")"
done
sees dpi-1 in vlan 1
sees nsh-1 port ether proto 0x894f
sees ids-1 port ip
echo "counters: $("$CATENA" get counters --local -o json | tr -d '\n')"
rm -r "$scratch"
"#;

fn run() -> Vec<(String, String)> {
    let output = lab::run(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/insertion"), SCRIPT);
    assert!(output.status.success(), "{}", printed(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().filter_map(|line| line.split_once(": "));
    lines.map(|(what, value)| (what.to_owned(), value.to_owned())).collect()
}

#[test]
fn packets_pass_a_function_of_every_kind() {
    let said = run();
    let all = |what: &str| -> Vec<&str> {
        said.iter().filter(|(word, _)| word == what).map(|(_, value)| value.as_str()).collect()
    };
    let [ipv4, ipv6, unclaimed, changed] = all("answer")[..] else { panic!("{said:?}") };
    assert_eq!(
        (ipv4, ipv6, unclaimed),
        ("You are 172.16.1.10.", "You are 2001:db8:a1::10.", "You are 172.16.1.10.")
    );
    assert!(changed.starts_with("You are 172.16.9."), "{changed}");
    assert_eq!(all("seen"), ["dpi-1", "nsh-1", "ids-1"]);

    // Both ways through each, or copies of both ways.
    let counters: Value = serde_json::from_str(all("counters")[0]).unwrap();
    let mut passed: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for counter in counters.as_array().unwrap() {
        if let (Some(instance), Some(direction)) =
            (counter["instance"].as_str(), counter["direction"].as_str())
        {
            *passed.entry((instance, direction)).or_default() += counter["packets"].as_u64().unwrap();
        }
    }
    for instance in ["fw-1", "cache-1", "dpi-1", "nsh-1", "ids-1", "nat-1"] {
        for direction in ["up", "down"] {
            assert!(
                passed.get(&(instance, direction)).is_some_and(|packets| *packets > 0),
                "{instance} {direction}: {passed:?}"
            );
        }
    }
    let ips = |instance| passed.get(&(instance, "up")).copied().unwrap_or_default();
    assert!(ips("ips-1") + ips("ips-2") > 0, "{passed:?}");
}
