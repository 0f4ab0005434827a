//! How long ten thousand tenants take to validate and to render on one core, and how much memory.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::progress::Waiting;
use crate::story::world::World;
use crate::workspace::{Profile, build_catena};
use crate::{apt, command, workspace};

pub fn render(tenants: u32) -> Result<Value> {
    apt::install()?;
    let catena = build_catena(Profile::Release)?;
    let file = std::env::temp_dir().join(format!("catena-tenants-{}.yaml", std::process::id()));
    std::fs::write(&file, world_of(tenants)?).context("cannot write the file of tenants")?;
    let mut validate = Command::new("taskset");
    validate.args(["--cpu-list", "0"]).arg(&catena).arg("validate").arg("-f").arg(&file).args(["-o", "json"]);
    let measured = measured(&mut validate);
    // It is of no use to anybody; what is left over is small.
    let _ = std::fs::remove_file(&file);
    let (report, peak_mib) = measured?;
    Ok(json!({
        "tenants": tenants,
        "validate_ms": report["validateMs"],
        "render_ms": report["renderMs"],
        "peak_mib": peak_mib,
        "objects": report["objects"],
    }))
}

/// The paper's inventory without its tenants, and `tenants` others, each with one site and one chain.
fn world_of(tenants: u32) -> Result<String> {
    const MOST: u32 = 1 << 16;
    if tenants > MOST {
        bail!("there are addresses for {MOST} tenants");
    }
    let mut text = String::new();
    for file in [World::NETWORK, "examples/paper/functions.yaml"] {
        text +=
            &std::fs::read_to_string(workspace::root().join(file)).with_context(|| format!("no {file}"))?;
        text += "\n---\n";
    }
    for number in 0..tenants {
        // Shared address space (RFC 6598), unique local addresses (RFC 4193), benchmarking addresses (RFC 2544).
        let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number * 16);
        let v6 = Ipv6Addr::from(
            u128::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)) + (u128::from(number) << 64),
        );
        let outer = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
        writeln!(
            text,
            "apiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {{name: t{number}}}\n\
             spec: {{prefixes: [{v4}/28, \"{v6}/64\"]}}\n---\n\
             apiVersion: catena/v1alpha1\nkind: Site\nmetadata: {{name: s{number}}}\n\
             spec:\n  tenant: t{number}\n  attachment:\n    gre:\n      customer: {{address: {outer}}}\n      \
             cloud: {{element: edge, address: 203.0.113.10}}\n      key: {number}\n---\n\
             apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {{name: c{number}}}\n\
             spec:\n  tenant: t{number}\n  match: [{{protocol: tcp, ports: [80, 443]}}]\n  functions: [fw, ips, web]\n---",
        )?;
    }
    Ok(text)
}

/// What the command prints, and the most memory that it had, in MiB.
fn measured(command: &mut Command) -> Result<(Value, u64)> {
    let _waiting = Waiting::for_("validating and rendering");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run taskset")?;
    let mut peak_kib = 0;
    while child.try_wait().context("cannot wait for catena")?.is_none() {
        // The kernel's own high-water mark: it only grows, so a look now and then sees it all but for the last moment.
        peak_kib = peak_kib.max(high_water_mark(&child));
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().context("cannot read what catena printed")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", command::shown(command), output.status);
    }
    Ok((serde_json::from_slice(&output.stdout).context("catena prints no JSON")?, peak_kib.div_ceil(1024)))
}

/// In KiB; 0 once it has ended.
fn high_water_mark(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
