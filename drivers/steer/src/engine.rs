//! The engine of one element as this process holds it: programs, maps, attachments, and what it knows to be in the maps.

use std::os::fd::AsFd;
use std::sync::Arc;

use catena_driver::DriverError;

use crate::Config;
use crate::bpf;
use crate::contents::Contents;
use crate::hook::Attachments;
use crate::maps::Maps;
use crate::pins::Pins;
use crate::program::Programs;

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Arc<Config>,
    pub(crate) pins: Pins,
    pub(crate) programs: Programs,
    pub(crate) attachments: Attachments,
    pub(crate) contents: Contents,
    /// Whether the flows of sites that lost prefixes are to be swept once more: some may have begun in that very moment.
    pub(crate) strangers: bool,
    /// Whether the maps have ever been pinned: what is in them is, or was, an element's state.
    used: bool,
}

impl Engine {
    /// Loads the programs on the maps that are pinned, or on new ones. Changes nothing that is installed. In the element's
    /// namespace.
    pub(crate) fn load(pins: Pins, config: Arc<Config>) -> Result<Self, DriverError> {
        let programs = Programs::load(&pins, &config.settings)?;
        let used = Maps::pinned(pins.folder())?.is_some();
        let contents = Contents::read(&programs.maps)?;
        let attachments = Attachments::open(config.hook, &pins)?;
        let mut engine = Self { attachments, config, pins, programs, contents, strangers: false, used };
        if used {
            // Whoever wrote the maps may have been killed before it told the programs of its last change.
            engine.changed()?;
        }
        Ok(engine)
    }

    /// Whether this is the engine to change the element with: it holds the maps that are pinned; or nothing is pinned,
    /// and it is either new, or the pins were taken away from under programs that still run.
    pub(crate) fn is_current(&self) -> Result<bool, DriverError> {
        match Maps::pinned(self.pins.folder())? {
            Some(pinned) => Ok(pinned.ids()? == self.programs.ids),
            None => {
                Ok(!self.used || self.attachments.any_alive(&self.programs.steer, self.contents.ports.keys()))
            }
        }
    }

    /// Reads the maps again if another process has changed them.
    pub(crate) fn refresh(&mut self) -> Result<(), DriverError> {
        if self.programs.maps.element()?.changes != self.contents.changes {
            self.contents = Contents::read(&self.programs.maps)?;
        }
        Ok(())
    }

    /// Pins what is not pinned.
    pub(crate) fn pin(&mut self) -> Result<(), DriverError> {
        for (name, map) in self.programs.maps.fds() {
            let path = self.pins.map(name);
            if !path.exists() {
                bpf::pin(map.as_fd(), &path)
                    .map_err(|error| DriverError::failed(format!("cannot pin {}", path.display()), error))?;
            }
        }
        self.used = true;
        self.attachments
            .pin(&self.pins)
            .map_err(|error| DriverError::failed("cannot pin the links of ports", error))
    }

    /// Tells the programs what is set.
    pub(crate) fn write_settings(&self) -> Result<(), DriverError> {
        let former = self.programs.maps.element()?;
        let element = self.config.element_entry(former);
        if element == former { Ok(()) } else { self.programs.maps.elements.put(&0, &element) }
    }

    /// Tells the programs, and other processes, that what they remember of the maps is old.
    pub(crate) fn changed(&mut self) -> Result<(), DriverError> {
        let mut element = self.programs.maps.element()?;
        element.changes += 1;
        self.programs.maps.elements.put(&0, &element)?;
        self.contents.changes = element.changes;
        Ok(())
    }
}
