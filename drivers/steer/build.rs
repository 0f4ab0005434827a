//! Compiles the eBPF programs by clang, and generates their skeleton.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

/// `bpf/NAME.bpf.c`, and the skeleton `NAME.skel.rs`.
const OBJECTS: [&str; 2] = ["steer", "route"];
/// Atomic operations that answer (Linux 5.12) come with the third instruction set.
const INSTRUCTIONS: &str = "-mcpu=v3";
const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wshadow", "-Werror", "-Wno-sign-compare"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    Command::new(&clang)
        .arg("--version")
        .output()
        .map_err(|error| format!("cannot run {clang} ({error}): the steering engine is compiled by it; install clang 14 or newer (Debian, Ubuntu: apt-get install clang), or set CLANG to where it is"))?;
    let variable = |name: &str| env::var(name).map_err(|_| format!("cargo has not set {name}"));
    // Of libbpf-sys: the headers of the libbpf that the loader is linked with.
    let libbpf = variable("DEP_BPF_INCLUDE")?;
    // Where Debian and its children keep asm/types.h, which clang looks for elsewhere when it compiles for bpf.
    let multiarch = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let folder = PathBuf::from(variable("OUT_DIR")?);
    OBJECTS.iter().try_for_each(|name| {
        let source = format!("bpf/{name}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            .clang(&clang)
            .clang_args(WARNINGS.iter().copied().chain([INSTRUCTIONS, "-I", &libbpf, "-idirafter", &multiarch]))
            .build_and_generate(folder.join(format!("{name}.skel.rs")))
            .map_err(|error| {
                format!("{source} does not compile: {error:#}. It needs the kernel's headers, too (Debian, Ubuntu: apt-get install linux-libc-dev)").replace('\n', " ")
            })
    })
}
