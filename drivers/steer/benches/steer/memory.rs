//! Memory of the kernel's.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use libbpf_rs::MapHandle;
use serde_json::{Value, json};

use crate::world::Pins;

/// Kinds of memory that maps are made of, in `/proc/meminfo`: entries that are allocated one by one are slabs, or
/// per-CPU; tables and arrays are allocated as virtual areas.
const KINDS: [&str; 3] = ["SUnreclaim:", "Percpu:", "VmallocUsed:"];

/// In bytes.
pub struct Memory {
    /// What the kernel says of the maps. Of entries that are allocated one by one it counts the net size.
    maps: u64,
    /// What it has allocated altogether, for whatever purpose.
    allocated: u64,
}

impl Memory {
    /// Of the maps that are pinned there.
    pub fn now(pins: &Pins) -> Result<Self> {
        let mut maps = 0;
        for entry in fs::read_dir(pins.folder())? {
            let path = entry?.path();
            // Links are pinned there, too.
            let Ok(map) = MapHandle::from_pinned_path(&path) else { continue };
            maps += memlock(&map).with_context(|| format!("{} tells no size", path.display()))?;
        }
        Ok(Self { maps, allocated: allocated()? })
    }

    /// The greater of two differences: the one leaves out what the allocator rounds up, the other what was allocated in
    /// advance or freed elsewhere meanwhile.
    pub fn more_than(&self, before: &Self) -> f64 {
        let maps = self.maps as f64 - before.maps as f64;
        maps.max(self.allocated as f64 - before.allocated as f64)
    }

    pub fn to_json(&self) -> Value {
        json!({"maps": self.maps, "allocated": self.allocated})
    }
}

fn memlock(map: &MapHandle) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
    Ok(line.trim().parse()?)
}

fn allocated() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |kind| -> Result<u64> {
        let line =
            text.lines().find_map(|line| line.strip_prefix(kind)).with_context(|| format!("no {kind}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    KINDS.into_iter().map(|kind| kib(kind).map(|kib| kib * 1024)).sum()
}
