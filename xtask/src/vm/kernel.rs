//! The distribution's kernel for virtual machines: fetched, unpacked, and not installed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{apt, command};

/// What stands for the newest kernel, in Debian and in Ubuntu.
const METAPACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];

pub struct Kernel {
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    modules: Modules,
}

pub struct Module {
    pub name: String,
    pub contents: Vec<u8>,
}

impl Kernel {
    /// The newest one that the distribution has, from `folder` if it is there already.
    pub fn fetch(folder: &Path) -> Result<Self> {
        let packages = apt::with_package_lists(packages)?;
        let unpacked = folder.join(packages.first().context("there is no kernel package")?);
        if !unpacked.exists() {
            unpack(&packages, folder, &unpacked)?;
        }
        Self::open(&unpacked)
    }

    fn open(unpacked: &Path) -> Result<Self> {
        let image = only_entry(&unpacked.join("boot"), "vmlinuz-")?;
        let folders = ["lib/modules", "usr/lib/modules"].map(|folder| unpacked.join(folder));
        let modules = folders.iter().find(|folder| folder.exists()).context("the kernel has no modules")?;
        let modules = only_entry(modules, "")?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { release, image, modules: Modules::index(&modules)? })
    }

    /// These modules and those that they depend on, in the order in which they can be loaded.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut found = Found::default();
        for name in names {
            self.modules.find(name, &mut found)?;
        }
        Ok(found.ordered)
    }
}

/// The package of the kernel and those of its modules, if they are apart, as in Ubuntu.
fn packages() -> Result<Vec<String>> {
    for metapackage in METAPACKAGES {
        let Ok(depends) = dependencies(metapackage) else { continue };
        let Some(image) = depends.into_iter().find(|package| package.starts_with("linux-image-")) else {
            continue;
        };
        let mut packages = vec![image.clone()];
        packages.extend(
            dependencies(&image)?.into_iter().filter(|package| package.starts_with("linux-modules-")),
        );
        return Ok(packages);
    }
    bail!("apt knows none of {}", METAPACKAGES.join(", "))
}

fn dependencies(package: &str) -> Result<Vec<String>> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--important", package]);
    let answer = command::read("apt-cache", &mut depends)?;
    Ok(answer.lines().filter_map(|line| Some(line.trim().strip_prefix("Depends: ")?.to_owned())).collect())
}

fn unpack(packages: &[String], folder: &Path, to: &Path) -> Result<()> {
    println!("fetching {} …", packages.join(" and "));
    // Under another name until it is whole.
    let partly = folder.join("unpacking");
    let _ = std::fs::remove_dir_all(&partly);
    std::fs::create_dir_all(&partly).with_context(|| format!("cannot make {}", partly.display()))?;
    apt::download(packages, &partly)?;
    let tree = partly.join("tree");
    for entry in std::fs::read_dir(&partly).context("cannot see what was fetched")?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            let mut extract = Command::new("dpkg-deb");
            command::read("unpacking", extract.arg("--extract").arg(entry.path()).arg(&tree))?;
        }
    }
    std::fs::rename(&tree, to).with_context(|| format!("cannot make {}", to.display()))?;
    std::fs::remove_dir_all(&partly).with_context(|| format!("cannot remove {}", partly.display()))
}

fn only_entry(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path());
    match (paths.next(), paths.next()) {
        (Some(path), None) => Ok(path),
        (found, _) => bail!(
            "there is {} {prefix}* in {}; remove that folder to fetch it anew",
            if found.is_some() { "more than one" } else { "no" },
            folder.display()
        ),
    }
}

/// A kernel's modules, by their names with underscores.
struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// What has been found so far, what others depend on first.
#[derive(Default)]
struct Found {
    names: BTreeSet<String>,
    ordered: Vec<Module>,
}

impl Modules {
    fn index(folder: &Path) -> Result<Self> {
        let builtin = folder.join("modules.builtin");
        let builtin = std::fs::read_to_string(&builtin)
            .with_context(|| format!("cannot read {}", builtin.display()))?
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("kernel")];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        Ok(Self { files, builtin })
    }

    fn find(&self, name: &str, found: &mut Found) -> Result<()> {
        let name = name.replace('-', "_");
        if self.builtin.contains(&name) || !found.names.insert(name.clone()) {
            return Ok(());
        }
        let path = self.files.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
        let contents = contents(path)?;
        let depends =
            depends(&contents).with_context(|| format!("{} is no kernel module", path.display()))?;
        for name in depends.split(',').filter(|name| !name.is_empty()) {
            self.find(name, found)?;
        }
        found.ordered.push(Module { name, contents });
        Ok(())
    }
}

/// `ip_gre` for `…/ip_gre.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let (name, compression) = path.file_name()?.to_str()?.split_once(".ko")?;
    matches!(compression, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut decompress = Command::new(program);
    let output = command::output(program, decompress.args(["-d", "-c"]).arg(path))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", command::shown(&decompress), output.status);
    }
    Ok(output.stdout)
}

/// The names that stand, with commas between, in the entry "depends" of a module's section `.modinfo`, whose entries end
/// with NULs. Every module has it (Linux, scripts/mod/modpost.c).
fn depends(module: &[u8]) -> Option<&str> {
    const ENTRY: &[u8] = b"\0depends=";
    let start = module.windows(ENTRY.len()).position(|window| window == ENTRY)? + ENTRY.len();
    let length = module[start..].iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&module[start..start + length]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with three modules, of which one is built in.
    fn modules(folder: &Path) -> Modules {
        let write = |path: &str, contents: &[u8]| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        };
        write("modules.builtin", b"kernel/net/ipv4/ip-tunnel.ko\n");
        write("kernel/net/gre.ko", b"ELF\0license=GPL\0depends=\0more");
        write("kernel/net/ipv4/ip-gre.ko", b"ELF\0license=GPL\0depends=ip-tunnel,gre\0more");
        write("kernel/net/broken.ko", b"ELF");
        Modules::index(folder).unwrap()
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let folder = tempfile::tempdir().unwrap();
        let modules = modules(folder.path());
        let mut found = Found::default();
        for name in ["ip_gre", "gre", "ip_tunnel"] {
            modules.find(name, &mut found).unwrap();
        }
        let names: Vec<&str> = found.ordered.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["gre", "ip_gre"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let modules = modules(folder.path());
        let missed = |name: &str| modules.find(name, &mut Found::default()).unwrap_err().to_string();
        assert_eq!(missed("wireguard"), "the kernel has no module wireguard");
        assert!(missed("broken").contains("is no kernel module"));
    }

    #[test]
    fn modules_have_names_also_when_compressed() {
        let name = |path: &str| module_name(Path::new(path));
        assert_eq!(name("net/ipv4/ip_gre.ko.zst").as_deref(), Some("ip_gre"));
        assert_eq!(name("crypto/crc32c-intel.ko").as_deref(), Some("crc32c_intel"));
        assert_eq!(name("modules.order"), None);
    }
}
