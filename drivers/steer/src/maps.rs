//! The maps of the engine, with the types of their keys and values.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path as FilePath;

use catena_driver::DriverError;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::bpf;
use crate::layout::{
    Counter, CounterKey, Element, Entry, FlowKey4, FlowKey6, FragmentKey, Group, Instance, Lengths, Load,
    NEAR_PORTS, NeighbourKey, Path, Policy, Port, PrefixKey, Rules, RulesKey, Side, Tunnel, TunnelEnd, Tuple,
};

/// How many entries are read or written by one system call.
const BATCH: usize = 4096;
/// Fewer than this many are written one by one: that costs no copy.
const FEW: usize = 4;
/// The kernel's own `ENOTSUPP`, which user space has no name for: this map knows no batches.
const NOT_SUPPORTED: i32 = 524;

/// One map.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    name: &'static str,
    handle: MapHandle,
    types: PhantomData<fn(K, V)>,
}

impl<K, V> Map<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    pub(crate) fn new(name: &'static str, handle: MapHandle) -> Self {
        Self { name, handle, types: PhantomData }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// The kernel's number of the map.
    pub(crate) fn id(&self) -> Result<u32, DriverError> {
        match self.handle.info() {
            Ok(info) => Ok(info.info.id),
            Err(error) => Err(DriverError::failed("cannot ask for the number of a map", error)),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, DriverError> {
        let value =
            self.handle.lookup(key.as_bytes(), MapFlags::ANY).map_err(|error| self.failed("read", error))?;
        value.map(|bytes| self.read(&bytes)).transpose()
    }

    /// In an instant, if it is a hash: whoever looks meanwhile sees the former value or this one.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<(), DriverError> {
        self.handle
            .update(key.as_bytes(), value.as_bytes(), MapFlags::ANY)
            .map_err(|error| self.not_written(bpf::io_error(error)))
    }

    /// Leaves an entry that is there as it is.
    pub(crate) fn put_new(&self, key: &K, value: &V) -> Result<(), DriverError> {
        match self.handle.update(key.as_bytes(), value.as_bytes(), MapFlags::NO_EXIST).map_err(bpf::io_error)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome.map_err(|error| self.not_written(error)),
        }
    }

    /// One after the other, in few system calls.
    pub(crate) fn put_all(&self, keys: &[K], values: &[V]) -> Result<(), DriverError> {
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            if keys.len() < FEW {
                self.put_each(keys, values)?;
                continue;
            }
            let written =
                bpf::update_batch(self.handle.as_fd(), keys.as_bytes(), values.as_bytes(), keys.len() as u32);
            match written {
                Err((_, error)) if error.raw_os_error() == Some(NOT_SUPPORTED) => {
                    self.put_each(keys, values)?;
                }
                written => written.map_err(|(_, error)| self.not_written(error))?,
            }
        }
        Ok(())
    }

    fn put_each(&self, keys: &[K], values: &[V]) -> Result<(), DriverError> {
        keys.iter().zip(values).try_for_each(|(key, value)| self.put(key, value))
    }

    pub(crate) fn remove(&self, key: &K) -> Result<(), DriverError> {
        match self.handle.delete(key.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("delete from", error)),
            _ => Ok(()),
        }
    }

    /// Those of them that are there.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<(), DriverError> {
        let mut rest = keys;
        while !rest.is_empty() {
            let batch = &rest[..rest.len().min(BATCH)];
            match bpf::delete_batch(self.handle.as_fd(), batch.as_bytes(), batch.len() as u32) {
                Ok(()) => rest = &rest[batch.len()..],
                // It ends at one that is not there.
                Err((done, error)) if error.raw_os_error() == Some(libc::ENOENT) => {
                    rest = rest.get(done as usize + 1..).unwrap_or_default();
                }
                Err((_, error)) if error.raw_os_error() == Some(NOT_SUPPORTED) => {
                    return rest.iter().try_for_each(|key| self.remove(key));
                }
                Err((_, error)) => return Err(self.failed("delete from", error)),
            }
        }
        Ok(())
    }

    /// What is there, in few system calls; an entry that moves meanwhile may be told twice or not at all.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, DriverError> {
        let size = self.handle.value_size() as usize;
        let mut entries = Vec::new();
        self.each(size, |key, value| {
            entries.push((self.read(key)?, self.read(value)?));
            Ok(())
        })?;
        Ok(entries)
    }

    /// The same for a map with a value for each CPU: `sum` is given them all.
    pub(crate) fn per_cpu_entries<T>(&self, sum: impl Fn(&[V]) -> T) -> Result<Vec<(K, T)>, DriverError> {
        let size = per_cpu_size::<V>();
        let cpus = cpus()?;
        let mut entries = Vec::new();
        self.each(size * cpus, |key, values| {
            let values = values.chunks(size).map(|value| self.read(value)).collect::<Result<Vec<_>, _>>()?;
            entries.push((self.read(key)?, sum(&values)));
            Ok(())
        })?;
        Ok(entries)
    }

    /// The values of all CPUs under one key, as `sum` makes one of them.
    pub(crate) fn get_per_cpu<T>(&self, key: &K, sum: impl Fn(&[V]) -> T) -> Result<Option<T>, DriverError> {
        let found = self.handle.lookup_percpu(key.as_bytes(), MapFlags::ANY);
        let values = found.map_err(|error| self.failed("read", error))?;
        let sum_of = |values: Vec<Vec<u8>>| {
            let values = values.iter().map(|value| self.read(value)).collect::<Result<Vec<_>, _>>()?;
            Ok(sum(&values))
        };
        values.map(sum_of).transpose()
    }

    /// Gives the value to one CPU, and zeros to all others.
    pub(crate) fn put_per_cpu(&self, key: &K, value: &V) -> Result<(), DriverError> {
        let mut values = vec![vec![0; size_of::<V>()]; cpus()?];
        if let Some(first) = values.first_mut() {
            first.copy_from_slice(value.as_bytes());
        }
        self.handle
            .update_percpu(key.as_bytes(), &values, MapFlags::ANY)
            .map_err(|error| self.failed("write", error))
    }

    fn each(
        &self,
        value_size: usize,
        mut work: impl FnMut(&[u8], &[u8]) -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let key_size = self.handle.key_size() as usize;
        let mut keys = vec![0; key_size * BATCH];
        let mut values = vec![0; value_size * BATCH];
        let mut place = Some(bpf::Place::default());
        while let Some(from) = place {
            let (count, next) =
                bpf::lookup_batch(self.handle.as_fd(), from, &mut keys, &mut values, BATCH as u32)
                    .map_err(|error| self.failed("read", error))?;
            let entries = keys.chunks(key_size).zip(values.chunks(value_size));
            entries.take(count as usize).try_for_each(|(key, value)| work(key, value))?;
            place = next;
        }
        Ok(())
    }

    fn read<T: FromBytes>(&self, bytes: &[u8]) -> Result<T, DriverError> {
        // Per-CPU values come padded to eight bytes.
        T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| {
            self.failed("read", io::Error::other(format!("an entry of {} bytes is too short", bytes.len())))
        })
    }

    fn not_written(&self, error: io::Error) -> DriverError {
        match error.raw_os_error() {
            // The first from hashes, the second from all others.
            Some(libc::E2BIG | libc::ENOSPC) => DriverError::Unsupported {
                what: format!(
                    "the map {} of the steering engine is full: it holds {} entries",
                    self.name,
                    self.handle.max_entries()
                ),
                help: "give the element more room (`steer: {tenants: N}`) and, since maps keep the size that they \
                       were made with, delete its chains once"
                    .to_owned(),
            },
            _ => self.failed("write", error),
        }
    }

    fn failed(&self, what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DriverError {
        DriverError::failed(format!("cannot {what} the map {}", self.name), error)
    }
}

/// The kernel pads the values of each CPU.
fn per_cpu_size<V>() -> usize {
    size_of::<V>().next_multiple_of(8)
}

fn cpus() -> Result<usize, DriverError> {
    libbpf_rs::num_possible_cpus().map_err(|error| DriverError::failed("cannot count the CPUs", error))
}

/// Lists the maps of an object once, for all that is done with every one of them.
macro_rules! maps {
    ($(#[$meta:meta])* struct $maps:ident { $($name:ident: $key:ty => $value:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(crate) struct $maps { $(pub(crate) $name: $crate::maps::Map<$key, $value>,)* }

        impl $maps {
            /// `find` is asked for each by its name.
            pub(crate) fn find<E>(
                mut find: impl FnMut(&'static str) -> Result<libbpf_rs::MapHandle, E>,
            ) -> Result<Self, E> {
                Ok(Self { $($name: $crate::maps::Map::new(stringify!($name), find(stringify!($name))?),)* })
            }

            pub(crate) fn fds(&self) -> Vec<(&'static str, std::os::fd::BorrowedFd<'_>)> {
                vec![$((stringify!($name), self.$name.fd()),)*]
            }

            /// The kernel's numbers of the maps.
            pub(crate) fn ids(&self) -> Result<std::collections::BTreeSet<u32>, catena_driver::DriverError> {
                Ok(std::collections::BTreeSet::from([$(self.$name.id()?,)*]))
            }

            /// The maps that are pinned in `folder`; `None` unless all of them are.
            pub(crate) fn pinned(folder: &std::path::Path) -> Result<Option<Self>, catena_driver::DriverError> {
                let mut missing = false;
                let maps = Self::find(|name| $crate::maps::pinned(&folder.join(name), &mut missing));
                match maps {
                    Ok(maps) => Ok(Some(maps)),
                    Err(_) if missing => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    };
}
pub(crate) use maps;

/// The map that is pinned here; `missing` says whether it was that none is.
pub(crate) fn pinned(path: &FilePath, missing: &mut bool) -> Result<MapHandle, DriverError> {
    MapHandle::from_pinned_path(path).map_err(|error| {
        *missing |= error.kind() == ErrorKind::NotFound;
        DriverError::failed(format!("cannot open the map {}", path.display()), error)
    })
}

maps! {
    /// All maps of one element. Named as in `bpf/maps.h`; pins have the same names.
    struct Maps {
        ports: u32 => Port,
        far_ports: u32 => Port,
        prefixes: PrefixKey => u32,
        lengths: u32 => Lengths,
        policies: u32 => Policy,
        rules: RulesKey => Rules,
        paths: u32 => Path,
        groups: u32 => Group,
        vlans: u32 => u32,
        instances: u32 => Instance,
        exits: u32 => Side,
        neighbours: NeighbourKey => u64,
        attended: u32 => u64,
        flows4: FlowKey4 => Entry,
        flows6: FlowKey6 => Entry,
        new_entry: u32 => Entry,
        loads: u32 => Load,
        fragments: FragmentKey => Tuple,
        tunnels: u32 => Tunnel,
        tunnel_ends: TunnelEnd => u32,
        tunnel_locals: [u8; 16] => u32,
        identifications: u32 => u32,
        answers: u32 => [u8; 1280],
        elements: u32 => Element,
        counters: CounterKey => Counter,
        returned: u32 => Counter,
    }
}

impl Maps {
    pub(crate) fn element(&self) -> Result<Element, DriverError> {
        Ok(self.elements.get(&0)?.unwrap_or_default())
    }

    pub(crate) fn port(&self, ifindex: u32) -> Result<Option<Port>, DriverError> {
        Ok(self.ports_with(ifindex).get(&ifindex)?.filter(|port| port.roles != 0))
    }

    pub(crate) fn put_port(&self, ifindex: u32, port: &Port) -> Result<(), DriverError> {
        self.ports_with(ifindex).put(&ifindex, port)
    }

    pub(crate) fn remove_port(&self, ifindex: u32) -> Result<(), DriverError> {
        if ifindex < NEAR_PORTS {
            // Nothing is removed from an array.
            self.ports.put(&ifindex, &Port::default())
        } else {
            self.far_ports.remove(&ifindex)
        }
    }

    /// All ports that are known, by their numbers.
    pub(crate) fn all_ports(&self) -> Result<Vec<(u32, Port)>, DriverError> {
        let mut ports = self.ports.entries()?;
        ports.extend(self.far_ports.entries()?);
        ports.retain(|(_, port)| port.roles != 0);
        Ok(ports)
    }

    fn ports_with(&self, ifindex: u32) -> &Map<u32, Port> {
        if ifindex < NEAR_PORTS { &self.ports } else { &self.far_ports }
    }
}
