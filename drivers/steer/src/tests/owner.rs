//! An element has one program that changes it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use catena_driver::DriverError;

use super::rig::{Rig, put, switch};

#[test]
fn a_second_program_is_refused_and_may_look() {
    let rig = Rig::new(&[]);
    let pins = rig.driver.inner.config.pins.clone();
    // As another program would hold it: this process shares it among its drivers.
    let name = [b"catena-steer:", pins.as_os_str().as_encoded_bytes()].concat();
    let other = rig.netns.run(|| UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)).unwrap();
    let changes: Vec<_> = switch().iter().map(put).collect();
    match rig.apply(&changes) {
        Err(error @ DriverError::Conflict { .. }) => {
            assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        }
        refused => panic!("{refused:?}"),
    }
    rig.check(&changes).unwrap();
    assert!(rig.observe().is_empty());
    drop(other);
    rig.apply(&changes).unwrap();
}

#[test]
fn drivers_of_one_program_share_an_element() {
    let rig = Rig::new(&switch());
    let other = crate::SteerDriver::new(crate::Config::clone(&rig.driver.inner.config)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let changes: Vec<_> = switch().iter().map(put).collect();
    runtime.block_on(catena_driver::Driver::apply(&other, catena_driver::Epoch(1), &changes)).unwrap();
}
