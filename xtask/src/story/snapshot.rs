//! What a machine is set up to do, to be compared before and after: rules, routes, links, tc, nft, eBPF pins.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command;
use crate::story::node;

/// The lines that each question is answered with.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<String, Vec<String>>);

/// Asked on every node.
const QUESTIONS: [&str; 8] = [
    "ip rule show",
    "ip -6 rule show",
    "ip route show table all",
    "ip -6 route show table all",
    "ip link show",
    "tc qdisc show",
    "nft list ruleset",
    "ip neigh show nud permanent",
];

impl Snapshot {
    pub fn take() -> Result<Self> {
        let nodes = nodes()?;
        // All at once: there are many questions.
        let answers: Vec<Result<BTreeMap<String, Vec<String>>>> = std::thread::scope(|scope| {
            let asked: Vec<_> = nodes.iter().map(|node| scope.spawn(|| of_node(node))).collect();
            let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(answer) => answer,
                Err(_) => bail!("a part of the snapshot panicked"),
            };
            asked.into_iter().map(joined).collect()
        });
        let mut found = BTreeMap::new();
        for answer in answers {
            found.extend(answer?);
        }
        found.insert("pins below /sys/fs/bpf".to_owned(), pins(Path::new("/sys/fs/bpf")));
        found.insert("nodes".to_owned(), nodes);
        Ok(Self(found))
    }

    /// What has come (`+`) and gone (`-`) since `before`.
    pub fn since(&self, before: &Snapshot) -> Vec<String> {
        let nothing = Vec::new();
        let questions =
            before.0.keys().chain(self.0.keys().filter(|question| !before.0.contains_key(*question)));
        let mut differences = Vec::new();
        for question in questions {
            let old = before.0.get(question).unwrap_or(&nothing);
            let new = self.0.get(question).unwrap_or(&nothing);
            differences.extend(
                old.iter().filter(|line| !new.contains(line)).map(|line| format!("{question}: - {line}")),
            );
            differences.extend(
                new.iter().filter(|line| !old.contains(line)).map(|line| format!("{question}: + {line}")),
            );
        }
        differences
    }
}

fn of_node(node: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for question in QUESTIONS {
        found.insert(format!("{node}: {question}"), lines(&node::ask(node, question)?));
    }
    for port in ports(node)? {
        for side in ["ingress", "egress"] {
            let question = format!("tc filter show dev {port} {side}");
            found.insert(format!("{node}: {question}"), lines(&node::ask(node, &question)?));
        }
    }
    // Programs that no filter shows (tcx); not on every system.
    if command::is_there("bpftool") {
        found.insert(format!("{node}: bpftool net show"), lines(&node::ask(node, "bpftool net show")?));
    }
    Ok(found)
}

fn nodes() -> Result<Vec<String>> {
    let list = command::read("listing the nodes", Command::new("ip").args(["netns", "list"]))?;
    let mut nodes: Vec<String> =
        list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    nodes.sort();
    Ok(nodes)
}

fn ports(node: &str) -> Result<Vec<String>> {
    // `2: eth0@if3: <BROADCAST,…`
    let name = |line: &str| line.split(": ").nth(1)?.split('@').next().map(str::to_owned);
    Ok(node::ask(node, "ip -oneline link show")?.lines().filter_map(name).collect())
}

/// The lines without what changes by itself: counters, and times that routes have left.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(settled).filter(|line| !line.is_empty()).collect()
}

fn settled(line: &str) -> String {
    let mut settled = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            // `counter packets 3 bytes 180`, `expires 30sec`
            "packets" | "bytes" | "expires" => drop(words.next()),
            _ => settled.push(word),
        }
    }
    settled.join(" ")
}

/// All files below a folder, by their paths.
fn pins(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.display().to_string());
        // The kernel's own iterators (preload) are folders of files too; they are there before and after.
        found.extend(pins(&path));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lines: &[&str]) -> Snapshot {
        let lines = lines.iter().map(|line| settled(line)).collect();
        Snapshot(BTreeMap::from([("q".to_owned(), lines)]))
    }

    #[test]
    fn counters_and_times_are_no_difference() {
        let before =
            snapshot(&["counter packets 1 bytes 60 drop", "default via fe80::1 expires 30sec metric 1"]);
        let after =
            snapshot(&["counter packets 2 bytes 120 drop", "default via fe80::1 expires 29sec metric 1"]);
        assert!(after.since(&before).is_empty());
    }

    #[test]
    fn what_came_and_went_is_told() {
        let differences = snapshot(&["a", "c"]).since(&snapshot(&["a", "b"]));
        assert_eq!(differences, ["q: - b", "q: + c"]);
        let nothing = Snapshot(BTreeMap::new());
        assert_eq!(nothing.since(&snapshot(&["a"])), ["q: - a"]);
    }
}
