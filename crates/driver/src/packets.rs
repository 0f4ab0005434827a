//! Packets on their way through the kernel.

use std::time::Duration;

use nix::libc;

/// `MEMBARRIER_CMD_GLOBAL` of linux/membarrier.h.
const GLOBAL: libc::c_int = 1;
/// Where the kernel knows no such call, or does not offer it (CPUs with `nohz_full`).
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Waits until no packet is on its way through an element's rules any more that was there at the time of the call: it was
/// led by what was installed before. Takes some ten milliseconds.
///
/// The kernel leads a packet through in one read-side critical section of RCU (`__netif_receive_skb`), and membarrier(2) waits
/// for these to end (`synchronize_rcu` in kernel/sched/membarrier.c).
pub fn wait_for_those_on_their_way() {
    // SAFETY: the call takes three integers and touches no memory.
    let outcome = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if outcome != 0 {
        std::thread::sleep(LONG_ENOUGH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_has_an_end() {
        let start = std::time::Instant::now();
        wait_for_those_on_their_way();
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
