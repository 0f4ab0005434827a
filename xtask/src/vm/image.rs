//! An initramfs: files in the "newc" format of cpio, as the kernel unpacks it (Linux, Documentation/driver-api/
//! early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Files by their absolute paths.
#[derive(Default)]
pub struct Image {
    files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    pub fn add_file(&mut self, path: &str, contents: Vec<u8>) {
        self.files.insert(path.to_owned(), contents);
    }

    /// A program of this machine and the libraries that it is linked with, without what only debuggers read.
    pub fn add_program(&mut self, program: &Path, path: &str) -> Result<()> {
        self.add_file(path, stripped(program)?);
        // A program without libraries is a failure to ldd, but none to us.
        let ldd = command::output("ldd", Command::new("ldd").arg(program))?;
        for library in libraries(&String::from_utf8_lossy(&ldd.stdout)) {
            if !self.files.contains_key(library) {
                let contents = std::fs::read(library).with_context(|| format!("cannot read {library}"))?;
                self.add_file(library, contents);
            }
        }
        Ok(())
    }

    /// The archive.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut folders: Vec<&str> =
            self.files.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at])).collect();
        folders.sort_unstable();
        folders.dedup();
        let mut archive = Vec::new();
        for folder in folders.into_iter().filter(|folder| !folder.is_empty()) {
            append(&mut archive, folder, FOLDER, &[]);
        }
        for (path, contents) in &self.files {
            append(&mut archive, path, PROGRAM, contents);
        }
        append(&mut archive, "TRAILER!!!", 0, &[]);
        archive
    }
}

fn append(archive: &mut Vec<u8>, path: &str, mode: u32, contents: &[u8]) {
    let name = path.trim_start_matches('/');
    // Inode, mode, owner, group, links, time, size, four device numbers, length of the name with its NUL, checksum.
    // Without links no two files are taken for one.
    let fields = [0, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(contents);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn stripped(program: &Path) -> Result<Vec<u8>> {
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o", "/dev/stdout"]).arg(program);
    let output = command::output("strip", &mut strip)?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(output.stdout);
    }
    // Not all that runs is ELF.
    std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))
}

/// The paths in what ldd prints: of libraries (`libc.so.6 => /lib/libc.so.6 (0x…)`) and of the loader (`/lib64/ld.so (0x…)`).
fn libraries(ldd: &str) -> Vec<&str> {
    let path = |line: &'_ str| {
        let start = line.find('/')?;
        Some(start..line.rfind(" (")?)
    };
    ldd.lines().filter_map(|line| line.get(path(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let ldd = "\tlinux-vdso.so.1 (0x00007fc6)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007fc6)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007fc6)\n";
        assert_eq!(libraries(ldd), ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn an_archive_has_folders_before_files_and_an_end() {
        let mut image = Image::default();
        image.add_file("/etc/steps", b"hello".to_vec());
        let archive = image.into_bytes();
        let text = String::from_utf8_lossy(&archive);
        let places =
            ["etc\0", "etc/steps\0", "hello\0\0\0", "TRAILER!!!\0"].map(|part| text.find(part).unwrap());
        assert!(places.is_sorted(), "{places:?}");
        assert!(places[2].is_multiple_of(4) && archive.len().is_multiple_of(4));
        assert!(text.starts_with("07070100000000000041ed"), "{text}");
    }
}
