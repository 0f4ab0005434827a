//! What is installed, read back in our own words.

use catena_driver::DriverError;
use catena_driver::hops::Kernel;
use catena_model::forwarding::{ElementState, Object};

use crate::installed::Installed;
use crate::nft::Nft;

/// All our rules and tables. A table whose hop the kernel does not lead to is read as one that leads nowhere
/// ([`NOWHERE`](crate::installed::NOWHERE)), a rule that does not lead to its table as one for
/// [`PathId::NOWHERE`](catena_model::forwarding::PathId::NOWHERE): all of them where there is anything else in our table
/// than what we would have made.
pub(crate) fn observe(
    nft: &Nft,
    kernel: &mut Kernel<'_>,
    released: u32,
) -> Result<ElementState, DriverError> {
    let sound = Installed::read(nft, kernel, released)?.sound();
    let tables = sound.all_tables().map(Object::Table);
    let rules = sound.all_rules().map(Object::Rule);
    Ok(tables.chain(rules).collect())
}
