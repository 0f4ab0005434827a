//! Where it is measured.

use std::fs;

use serde_json::{Value, json};

pub fn describe() -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpu
        .lines()
        .filter(|line| line.starts_with("model name"))
        .filter_map(|line| line.split(": ").nth(1))
        .collect();
    let hypervisor = cpu.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    json!({
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cpu": models.first().copied().unwrap_or("unknown"),
        "cores": models.len(),
        "virtual": hypervisor,
        "memory_gib": memory_gib(),
        "bpf_jit": fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default().trim() == "1",
    })
}

fn memory_gib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) >> 20
}

/// In a few words.
pub fn summary(machine: &Value) -> String {
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let is_virtual = if machine["virtual"] == true { ", virtual" } else { "" };
    format!("Linux {}, {}, {} cores{is_virtual}", text("kernel"), text("cpu"), machine["cores"])
}
