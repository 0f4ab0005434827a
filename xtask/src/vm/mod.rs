//! `cargo xtask test --vm`: the tests of what goes into the kernel, on the kernel that people have.
//!
//! The distribution's own kernel is booted in an emulated machine (no virtualisation needed, no root, nothing installed of
//! the kernel). Its file system is an initramfs with the test binaries, the programs they call, and this very program as
//! init. What the machine prints is shown as it comes; results come by a serial line of their own, where no kernel
//! message can get between. Start reading at [`test`]; what happens inside is in [`guest`].

pub mod guest;
mod image;
mod kernel;
mod lines;
mod machine;
mod report;
mod steps;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use self::image::Image;
use self::kernel::Kernel;
use self::machine::Machine;
use self::report::Report;
use self::steps::Step;
use crate::test::Tally;
use crate::workspace::{cargo, own_program, root};
use crate::{apt, command};

/// The crates whose tests ask the kernel.
const CRATES: [&str; 3] = ["catena-driver-steer", "catena-driver-linux", "catena-driver-nft"];
/// Of those tests, what is not run: hundreds of random states, emulated, take longer than all others together.
const LEFT_OUT: [&str; 1] = ["convergence::"];

/// What those tests call.
const PROGRAMS: [&str; 7] = ["sh", "seq", "ip", "tc", "nft", "ping", "ethtool"];

/// What those tests need of the kernel, besides what it has built in. What these depend on comes along. Nobody loads a
/// module when it is first asked for: it must be here.
const MODULES: [&str; 12] = [
    "veth",
    "tun",
    "bridge",
    "sch_ingress",
    "cls_bpf",
    "ip_gre",
    "ip6_gre",
    "nf_tables",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_chain_nat",
    "nft_nat",
];

/// Runs the tests in a virtual machine: all, or those whose names contain one of `filters`.
pub fn test(filters: &[String]) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the virtual machine runs the tests as they are built here, and it is for x86_64 alone");
    }
    apt::install()?;
    apt::install_for_vm()?;
    let folder = folder()?;
    let lock = File::create(folder.join("lock")).context("cannot make a lock file")?;
    lock.try_lock().context("another `cargo xtask test --vm` seems to be running")?;
    let kernel = Kernel::fetch(&folder)?;
    let tests = build()?;
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, pack(&kernel, &tests, filters)?.into_bytes())
        .with_context(|| format!("cannot write {}", initramfs.display()))?;
    println!("\nLinux {} with {} test programs", kernel.release, tests.len());
    let machine = Machine { kernel: &kernel.image, initramfs: &initramfs, results: &folder.join("results") };
    let report = Report::read(&machine.run()?)?;
    conclude(&kernel, &tests, &report)
}

/// Where kernels are kept and images are made: beside what cargo builds.
fn folder() -> Result<PathBuf> {
    let this = own_program()?;
    let folder = this.ancestors().nth(2).context("this program is not in a target folder")?.join("vm");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// A test program that cargo has built.
struct TestProgram {
    /// Its main source file, below the workspace.
    name: String,
    path: PathBuf,
}

fn build() -> Result<Vec<TestProgram>> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    for name in CRATES {
        build.args(["--package", name]);
    }
    let output = build.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", command::shown(&build), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut programs: Vec<TestProgram> = messages.lines().filter_map(built).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// The test program that a message of cargo's is about.
fn built(message: &str) -> Option<TestProgram> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["profile"]["test"].as_bool().filter(|is_test| *is_test)?;
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let name = source.strip_prefix(root()).ok()?.display().to_string();
    Some(TestProgram { name, path: message["executable"].as_str()?.into() })
}

fn pack(kernel: &Kernel, tests: &[TestProgram], filters: &[String]) -> Result<Image> {
    let mut image = Image::default();
    let mut steps = Vec::new();
    image.add_program(&own_program()?, guest::INIT)?;
    for name in PROGRAMS {
        let path = command::find(name).with_context(|| format!("there is no program {name}"))?;
        image.add_program(&path, &format!("/bin/{name}"))?;
    }
    for module in kernel.modules(&MODULES)? {
        let path = format!("/modules/{}.ko", module.name);
        image.add_file(&path, module.contents);
        steps.push(Step::Load(path));
    }
    let mut arguments = filters.to_vec();
    arguments.extend(LEFT_OUT.iter().flat_map(|name| ["--skip".to_owned(), name.to_string()]));
    for test in tests {
        image.add_program(&test.path, &guest::test_path(&test.name))?;
        steps.push(Step::Test(test.name.clone(), arguments.clone()));
    }
    // `ip` asks there for the numbers of protocols.
    image.add_file("/etc/protocols", b"icmp 1\ntcp 6\nudp 17\nipv6-icmp 58\n".to_vec());
    image.add_file(guest::STEPS, steps::write(&steps).into_bytes());
    Ok(image)
}

/// Shows the results. All tests must have been run, and none may have failed.
fn conclude(kernel: &Kernel, tests: &[TestProgram], report: &Report) -> Result<()> {
    println!("\nLinux {}", kernel.release);
    let mut sum = Tally::default();
    for test in tests {
        match report.of(&test.name) {
            Some(tally) => {
                println!("  {:<40} {tally}", test.name);
                sum.add(tally);
            }
            None => {
                println!("  {:<40} did not come to its end", test.name);
                sum.failed += 1;
            }
        }
    }
    println!("\ntest in a virtual machine: {sum}");
    if let Some(why) = &report.stopped {
        bail!("the virtual machine stopped: {why}");
    }
    if sum.failed > 0 {
        bail!("{} of {} failed; the first is furthest up", sum.failed, sum.passed + sum.failed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_cargo_builds_the_test_programs_are_taken() {
        let source = root().join("drivers/steer/tests/kernel/main.rs");
        let message = |test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "target": {"kind": ["test"], "name": "kernel", "src_path": source},
                "profile": {"test": test},
                "executable": "/target/debug/deps/kernel-43a9",
            })
            .to_string()
        };
        assert_eq!(built(&message(true)).unwrap().name, "drivers/steer/tests/kernel/main.rs");
        assert!(built(&message(false)).is_none());
        assert!(built("   Compiling libc").is_none());
    }
}
