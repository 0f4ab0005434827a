//! A switch to try packets on: real ports in a namespace, the real driver, and a table of cases.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Command;

use catena_driver::netns::NetNs;
use catena_driver::{Counted, Driver, DriverError, DropReason, Epoch};
use catena_model::forwarding::{
    Action, Change, Delivery, Direction, ElementState, Exits, FlowMatch, Hop, Ingress, Insertion, Instance,
    InstanceId, InstanceState, Member, NextHops, Object, Path, PathId, Policy, PolicyRule, Purpose, Side,
    SiteId, Stickiness,
};
use catena_model::name::PortName;
use catena_model::packet::{Packet, pick};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::layout::Flow;
use crate::maps::Maps;
use crate::netlink::Connection;
use crate::numbers::slot_of;
use crate::program::Program;
use crate::program::skeleton::types::__sk_buff;
use crate::{Config, Engine, Settings, SteerDriver, Times};

pub(super) const MARK: u32 = 0x0400_0000;

pub(super) const SITE: SiteId = SiteId(1);
pub(super) const PATH: PathId = PathId(0x01_02_03);
/// A routed firewall, two copies of a transparent inspector, a routed proxy.
pub(super) const FIREWALL: InstanceId = InstanceId(11);
pub(super) const INSPECTORS: [InstanceId; 2] = [InstanceId(12), InstanceId(13)];
pub(super) const PROXY: InstanceId = InstanceId(14);

const PORTS: [&str; 11] =
    ["vr", "gw", "fw-in", "fw-out", "a-in", "a-out", "b-in", "b-out", "web-in", "web-out", "wan"];

/// A folder that is a BPF file system of its own.
pub(super) struct BpfFs(pub(super) TempDir);

impl BpfFs {
    pub(super) fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

pub(super) struct Rig {
    pub(super) driver: SteerDriver,
    runtime: tokio::runtime::Runtime,
    pub(super) netns: NetNs,
    _pins: BpfFs,
}

/// What the programs did with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: i32,
    pub(super) frame: Vec<u8>,
    pub(super) mark: u32,
}

pub(super) const NEXT: i32 = -1;
pub(super) const SHOT: i32 = 2;
pub(super) const REDIRECT: i32 = 7;

/// What is expected of a packet.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// To the next program and the stack, unmarked, nothing counted.
    Passes,
    /// The same, and counted as claimed.
    IsClaimed(Direction),
    /// The same, but marked, and nothing counted.
    IsReleased,
    /// Sent on, and counted as this and as nothing else.
    Goes(Counted),
    Dropped(DropReason),
}

/// One line of a packet table.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) because: &'static str,
    pub(super) at: &'static str,
    pub(super) frame: Vec<u8>,
    pub(super) expect: Expect,
}

impl Rig {
    pub(super) fn new(objects: &[Object]) -> Self {
        Self::with(Settings::default(), Times::default(), objects)
    }

    pub(super) fn with(settings: Settings, times: Times, objects: &[Object]) -> Self {
        Self::on(&PORTS, settings, times, objects)
    }

    pub(super) fn on(ports: &[&str], settings: Settings, times: Times, objects: &[Object]) -> Self {
        let netns = NetNs::create().unwrap();
        let pins = BpfFs::mount();
        let make: String = ports
            .iter()
            .map(|port| format!("link add {port} type veth peer name {port}-x\nlink set {port} up\n"))
            .collect();
        netns.run(|| batch(&make)).unwrap();
        let config = Config {
            element: "br-int".parse().unwrap(),
            netns: netns.clone(),
            pins: pins.0.path().join("catena").join("br-int"),
            mark: MARK,
            hook: None,
            settings,
            times,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rig = Self { driver: SteerDriver::new(config).unwrap(), runtime, netns, _pins: pins };
        rig.put(objects);
        rig
    }

    pub(super) fn put(&self, objects: &[Object]) {
        let changes: Vec<_> = objects.iter().map(super::rig::put).collect();
        self.apply(&changes).unwrap();
    }

    pub(super) fn delete(&self, objects: &[Object]) {
        let changes: Vec<_> = objects.iter().map(|object| Change::Delete { old: object.clone() }).collect();
        self.apply(&changes).unwrap();
    }

    pub(super) fn apply(&self, changes: &[Change]) -> Result<(), DriverError> {
        self.runtime.block_on(self.driver.apply(Epoch(1), changes))
    }

    pub(super) fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        self.runtime.block_on(self.driver.check(changes))
    }

    pub(super) fn observe(&self) -> ElementState {
        self.runtime.block_on(self.driver.observe()).unwrap()
    }

    /// As a program that is started again finds the element.
    pub(super) fn restart(mut self) -> Self {
        let config = Config::clone(&self.driver.inner.config);
        self.driver = SteerDriver::new(config).unwrap();
        self
    }

    pub(super) fn counters(&self) -> Vec<(Counted, u64)> {
        let counters = self.runtime.block_on(self.driver.counters()).unwrap();
        counters.into_iter().map(|counter| (counter.of, counter.packets)).collect()
    }

    pub(super) fn bytes(&self, of: &Counted) -> u64 {
        let counters = self.runtime.block_on(self.driver.counters()).unwrap();
        counters.iter().filter(|counter| counter.of == *of).map(|counter| counter.bytes).sum()
    }

    pub(super) fn live_flows(&self, path: PathId) -> u64 {
        self.runtime.block_on(self.driver.live_flows(path)).unwrap()
    }

    /// The flows, each under the port of its site's end; those of IPv4 first.
    pub(super) fn flows(&self) -> Vec<(u16, Flow)> {
        self.with_engine(|engine| {
            let Maps { flows4, flows6, .. } = &engine.programs.maps;
            let flows4 =
                flows4.entries().unwrap().into_iter().map(|(key, entry)| (key.local_port, entry.flow));
            let flows6 =
                flows6.entries().unwrap().into_iter().map(|(key, entry)| (key.local_port, entry.flow));
            flows4.chain(flows6).collect()
        })
    }

    /// The instances that a flow was given, in the order of the way up.
    pub(super) fn instances_of(&self, flow: &Flow) -> Vec<InstanceId> {
        self.with_engine(|engine| {
            let id = |handle: &u32| {
                let entry = engine.programs.maps.instances.get(&slot_of(*handle)).unwrap().unwrap();
                assert_eq!(entry.handle, *handle, "the flow's instance is installed");
                InstanceId(entry.id)
            };
            flow.instances[..flow.count as usize].iter().map(id).collect()
        })
    }

    pub(super) fn forget_flows(&self) {
        self.with_engine(|engine| {
            let Maps { flows4, flows6, loads, .. } = &engine.programs.maps;
            flows4.entries().unwrap().iter().for_each(|(key, _)| flows4.remove(key).unwrap());
            flows6.entries().unwrap().iter().for_each(|(key, _)| flows6.remove(key).unwrap());
            loads.entries().unwrap().iter().for_each(|(key, _)| loads.remove(key).unwrap());
        });
    }

    pub(super) fn with_engine<T: Send>(&self, work: impl FnOnce(&Engine) -> T + Send) -> T {
        self.driver
            .inner
            .in_netns(|| self.driver.inner.with_current_engine(|engine| Ok(work(engine))))
            .unwrap()
    }

    /// Runs the program of the ports on a frame that came in at `port`, addressed to it unless it is tagged.
    pub(super) fn send(&self, port: &str, frame: &[u8]) -> Outcome {
        self.run(port, frame, 0, |engine| &engine.programs.steer)
    }

    pub(super) fn send_marked(&self, port: &str, frame: &[u8], mark: u32) -> Outcome {
        self.run(port, frame, mark, |engine| &engine.programs.steer)
    }

    /// Runs the program at the hidden end of the interface of tunnels.
    pub(super) fn encapsulate(&self, frame: &[u8], mark: u32) -> Outcome {
        self.run("catena-gre-x", frame, mark, |engine| &engine.programs.encap)
    }

    pub(super) fn mac(&self, port: &str) -> [u8; 6] {
        self.netns.run(|| Connection::open()?.link(port)).unwrap().unwrap().mac
    }

    fn run(&self, port: &str, frame: &[u8], mark: u32, program: fn(&Engine) -> &Program) -> Outcome {
        let mut frame = frame.to_vec();
        if frame[..6] == [0; 6] {
            frame[..6].copy_from_slice(&self.mac(port));
        }
        self.with_engine(|engine| {
            let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
            test_run(program(engine).as_fd(), ifindex, &frame, mark)
        })
    }

    /// Runs a table. Says of each case that fails what it was meant to show.
    #[track_caller]
    pub(super) fn expect(&self, cases: &[Case]) {
        let failures: Vec<_> = cases.iter().filter_map(|case| self.try_case(case).err()).collect();
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    fn try_case(&self, case: &Case) -> Result<(), String> {
        let before = self.counters();
        let outcome = self.send(case.at, &case.frame);
        let counted: Vec<_> = self
            .counters()
            .into_iter()
            // What comes back is counted besides what becomes of it.
            .filter(|(of, _)| !matches!(of, Counted::Returned { .. }))
            .filter_map(|(of, after)| {
                let before = before.iter().find(|(counted, _)| *counted == of).map_or(0, |(_, count)| *count);
                let of = match of {
                    Counted::Dropped { reason, .. } => Counted::Dropped { path: None, reason },
                    of => of,
                };
                (after != before).then_some((of, after - before))
            })
            .collect();
        let (verdict, mark, expected) = match case.expect.clone() {
            Expect::Passes => (NEXT, 0, None),
            Expect::IsClaimed(direction) => (NEXT, 0, Some(Counted::Claimed { site: SITE, direction })),
            Expect::IsReleased => (NEXT, MARK, None),
            Expect::Goes(counted) => (REDIRECT, 0, Some(counted)),
            Expect::Dropped(reason) => (SHOT, 0, Some(Counted::Dropped { path: None, reason })),
        };
        let expected: Vec<_> = expected.into_iter().map(|of| (of, 1)).collect();
        if (outcome.verdict, outcome.mark, &counted) == (verdict, mark, &expected) {
            return Ok(());
        }
        Err(format!(
            "{}: {}\n  expected {:?}\n  verdict {}, mark {:#x}, counted {counted:?}",
            case.name, case.because, case.expect, outcome.verdict, outcome.mark
        ))
    }
}

/// What is said of a frame besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TestRun {
    pub(super) ifindex: u32,
    pub(super) mark: u32,
    /// Of a super-frame: into how many segments of how many bytes of payload it is cut.
    pub(super) gso_segs: u32,
    pub(super) gso_size: u32,
    /// Of the control block.
    pub(super) first_word: u32,
}

/// One frame through one program, as if it had come in at a port of this thread's namespace.
pub(super) fn test_run(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], mark: u32) -> Outcome {
    test_run_with(program, &TestRun { ifindex, mark, ..TestRun::default() }, frame)
}

pub(super) fn test_run_with(program: BorrowedFd<'_>, with: &TestRun, frame: &[u8]) -> Outcome {
    let mut out = vec![0_u8; frame.len() + 256];
    let TestRun { ifindex, mark, gso_segs, gso_size, first_word } = *with;
    // The kernel insists that all else is zero, also what pads the structure, which a value that is moved need not keep.
    let mut context = MaybeUninit::<__sk_buff>::zeroed();
    // SAFETY: zeros are a value of the structure.
    let given = unsafe { context.assume_init_mut() };
    (given.ifindex, given.mark, given.gso_segs, given.gso_size) = (ifindex, mark, gso_segs, gso_size);
    given.cb[0] = first_word;
    let mut after = __sk_buff::default();
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        data_out: out.as_mut_ptr().cast(),
        data_size_out: out.len() as u32,
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: size_of_val(&context) as u32,
        ctx_out: (&raw mut after).cast(),
        ctx_size_out: size_of_val(&after) as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: all buffers live until the call returns, and are as long as said.
    let outcome = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) };
    let error = std::io::Error::from_raw_os_error(-outcome);
    assert_eq!(outcome, 0, "{error}: {with:?}, {} bytes: {frame:02x?}", frame.len());
    out.truncate(options.data_size_out as usize);
    Outcome { verdict: options.retval as i32, frame: out, mark: after.mark }
}

/// Runs `ip` on many lines in this thread's namespace.
pub(super) fn batch(lines: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn()?;
    ip.stdin.take().unwrap().write_all(lines.as_bytes())?;
    assert!(ip.wait()?.success(), "ip -batch failed on\n{lines}");
    Ok(())
}

pub(super) fn put(object: &Object) -> Change {
    Change::Put { new: object.clone(), old: None }
}

pub(super) fn side(port: &str, next_hops: Option<u8>) -> Side {
    let next_hops = next_hops.map_or(NextHops::default(), |host| NextHops {
        v4: Some([10, 20, 0, host].into()),
        v6: Some(format!("2001:db8:20::{host:x}").parse().unwrap()),
    });
    Side { port: port.parse::<PortName>().unwrap(), next_hops }
}

pub(super) fn ingress(
    port: &str,
    purpose: Purpose,
    directions: impl IntoIterator<Item = Direction>,
) -> Object {
    Object::Ingress(Ingress {
        port: port.parse().unwrap(),
        directions: directions.into_iter().collect(),
        purpose,
        site: None,
    })
}

pub(super) fn policy(rules: Vec<PolicyRule>, exits: Option<Exits>) -> Policy {
    let prefixes = ["172.16.1.0/24", "2001:db8:a1::/64"].map(|prefix| prefix.parse().unwrap());
    Policy { site: SITE, prefixes: prefixes.into(), rules, exits }
}

/// TCP to this port of the far end.
pub(super) fn tcp(port: u16, action: Action) -> PolicyRule {
    let protocol = Some(catena_model::address::Protocol::TCP);
    PolicyRule { matches: FlowMatch { protocol, ports: Some(port.into()), ..FlowMatch::default() }, action }
}

pub(super) fn exits() -> Exits {
    Exits { up: side("gw", Some(1)), down: side("vr", Some(2)) }
}

pub(super) fn instances() -> Vec<Object> {
    let l3 = |id, name: &str, host| Instance {
        id,
        insertion: Insertion::L3,
        inside: side(&format!("{name}-in"), Some(host)),
        outside: side(&format!("{name}-out"), Some(host + 1)),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    };
    let l2 = |id, name: &str| Instance {
        id,
        insertion: Insertion::L2,
        inside: side(&format!("{name}-in"), None),
        outside: side(&format!("{name}-out"), None),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    };
    [l3(FIREWALL, "fw", 11), l2(INSPECTORS[0], "a"), l2(INSPECTORS[1], "b"), l3(PROXY, "web", 21)]
        .map(Object::Instance)
        .into()
}

/// The inspector that the model picks for the packet's flow.
pub(super) fn chosen_inspector(packet: &Packet) -> InstanceId {
    pick(packet.flow_hash(Stickiness::FiveTuple), INSPECTORS.map(Member::new)).unwrap()
}

pub(super) fn path() -> Object {
    let hops = vec![Hop::of([FIREWALL]), Hop::of(INSPECTORS), Hop::of([PROXY])];
    Object::Path(Path { id: PATH, site: SITE, hops, vlan: None })
}

/// A chain of three functions for web traffic, and nothing else.
pub(super) fn switch() -> Vec<Object> {
    let mut objects = instances();
    objects.push(path());
    objects.push(Object::Policy(policy(
        vec![tcp(80, Action::Path(PATH)), tcp(443, Action::Path(PATH))],
        Some(exits()),
    )));
    objects.push(ingress("vr", Purpose::Steer, [Direction::Up]));
    objects.push(ingress("gw", Purpose::Steer, [Direction::Down]));
    objects
}
