//! The maps of the engine, with the types of their keys and values.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path as FilePath;

use catena_driver::DriverError;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::layout::{
    Counter, CounterKey, Element, Flow, FlowKey, Instance, Lpm4, Lpm6, Path, Policy, Port, Tunnel, TunnelEnd,
};

/// How many entries of a big map are read by one system call.
const BATCH: u32 = 4096;

/// One map.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    handle: MapHandle,
    types: PhantomData<fn(K, V)>,
}

impl<K, V> Map<K, V>
where
    K: FromBytes + IntoBytes + Immutable,
    V: FromBytes + IntoBytes + Immutable,
{
    fn new(handle: MapHandle) -> Self {
        Self { handle, types: PhantomData }
    }

    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, DriverError> {
        let value =
            self.handle.lookup(key.as_bytes(), MapFlags::ANY).map_err(|error| self.failed("read", error))?;
        value.map(|bytes| self.read(&bytes)).transpose()
    }

    /// In an instant: whoever looks meanwhile sees the former value or this one.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<(), DriverError> {
        self.handle
            .update(key.as_bytes(), value.as_bytes(), MapFlags::ANY)
            .map_err(|error| self.failed("write", error))
    }

    pub(crate) fn remove(&self, key: &K) -> Result<(), DriverError> {
        match self.handle.delete(key.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("delete from", error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn keys(&self) -> Result<Vec<K>, DriverError> {
        self.handle.keys().map(|bytes| self.read(&bytes)).collect()
    }

    /// What is there; not an instant's state if others write meanwhile.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, DriverError> {
        let mut entries = Vec::new();
        for key in self.keys()? {
            if let Some(value) = self.get(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    /// The same for big hash maps, in few system calls; an entry that moves meanwhile may be told twice or not at all.
    pub(crate) fn batches(&self) -> Result<impl Iterator<Item = Result<(K, V), DriverError>>, DriverError> {
        let entries = self
            .handle
            .lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)
            .map_err(|error| self.failed("read", error))?;
        Ok(entries.map(|(key, value)| Ok((self.read(&key)?, self.read(&value)?))))
    }

    /// The value of each CPU.
    pub(crate) fn per_cpu(&self, key: &K) -> Result<Vec<V>, DriverError> {
        let values = self
            .handle
            .lookup_percpu(key.as_bytes(), MapFlags::ANY)
            .map_err(|error| self.failed("read", error))?;
        values.unwrap_or_default().iter().map(|bytes| self.read(bytes)).collect()
    }

    fn read<T: FromBytes>(&self, bytes: &[u8]) -> Result<T, DriverError> {
        // Per-CPU values come padded to eight bytes.
        T::read_from_prefix(bytes).map(|(value, _)| value).map_err(|_| {
            DriverError::failed(
                format!("cannot read map {:?}", self.handle.name()),
                format!("an entry of {} bytes is too short", bytes.len()),
            )
        })
    }

    fn failed(&self, what: &str, error: libbpf_rs::Error) -> DriverError {
        DriverError::failed(format!("cannot {what} map {:?}", self.handle.name()), error)
    }
}

/// Lists the maps once, for all that is done with every one of them.
macro_rules! maps {
    ($($name:ident: $key:ty => $value:ty,)*) => {
        /// All maps of one element. Named as in `bpf/maps.h`; pins have the same names.
        #[derive(Debug)]
        pub(crate) struct Maps { $(pub(crate) $name: Map<$key, $value>,)* }

        impl Maps {
            /// `find` is asked for each by its name.
            pub(crate) fn find<E>(mut find: impl FnMut(&'static str) -> Result<MapHandle, E>) -> Result<Self, E> {
                Ok(Self { $($name: Map::new(find(stringify!($name))?),)* })
            }

            pub(crate) fn fds(&self) -> Vec<(&'static str, BorrowedFd<'_>)> {
                vec![$((stringify!($name), self.$name.handle.as_fd()),)*]
            }

            /// The kernel's numbers of the maps.
            pub(crate) fn ids(&self) -> Result<BTreeSet<u32>, DriverError> {
                let id = |handle: &MapHandle| match handle.info() {
                    Ok(info) => Ok(info.info.id),
                    Err(error) => Err(DriverError::failed("cannot ask for the number of a map", error)),
                };
                Ok(BTreeSet::from([$(id(&self.$name.handle)?,)*]))
            }
        }
    };
}

maps! {
    ports: u32 => Port,
    sites4: Lpm4 => u32,
    sites6: Lpm6 => u32,
    policies: u32 => Policy,
    paths: u32 => Path,
    instances: u32 => Instance,
    flows: FlowKey => Flow,
    fragments: [u8; 40] => [u8; 40],
    tunnels: u32 => Tunnel,
    tunnel_ends: TunnelEnd => u32,
    tunnel_locals: [u8; 4] => u32,
    allowed4: Lpm4 => u32,
    allowed6: Lpm6 => u32,
    elements: u32 => Element,
    counters: CounterKey => Counter,
}

impl Maps {
    /// The maps that are pinned in `folder`; `None` unless all of them are.
    pub(crate) fn pinned(folder: &FilePath) -> Result<Option<Self>, DriverError> {
        let mut missing = false;
        let maps = Self::find(|name| {
            MapHandle::from_pinned_path(folder.join(name)).inspect_err(|error| {
                missing |= error.kind() == ErrorKind::NotFound;
            })
        });
        match maps {
            Ok(maps) => Ok(Some(maps)),
            Err(_) if missing => Ok(None),
            Err(error) => {
                Err(DriverError::failed(format!("cannot open the maps in {}", folder.display()), error))
            }
        }
    }

    pub(crate) fn element(&self) -> Result<Element, DriverError> {
        Ok(self.elements.get(&0)?.unwrap_or_default())
    }
}
