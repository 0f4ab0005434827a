//! Frames one after the other through the program of the ports, each compared with what the model says of it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use catena_driver::{Counted, DropReason};
use catena_model::address::Protocol;
use catena_model::forwarding::{InstanceId, Object, SiteId, TUNNEL_PORT};
use catena_model::name::PortName;
use catena_model::packet::Packet;

use super::generate::{Random, claims, complete};
use super::model::{Choice, Expected, Fate, Flow, FlowKey, Model};
use super::objects::World;
use super::sight::Frame;
use super::worlds::Element;
use super::{model, safety};
use crate::engine::Engine;
use crate::flows::{Sweep, sweep};
use crate::layout;
use crate::maps::Maps;
use crate::netlink::Connection;
use crate::numbers::slot_of;
use crate::tests::rig::{MARK, NEXT, REDIRECT, Rig, SHOT, TestRun, batch, test_run_with};
use crate::{Settings, Times};

/// More than a run opens. The tables are gone over after each frame, so they are not larger.
const FLOWS: u32 = 32_768;

/// A frame that comes in by a port.
#[derive(Clone, Debug)]
pub(super) struct Step {
    port: PortName,
    frame: Frame,
    /// What others have put into the mark, or someone wants us to believe.
    mark: u32,
}

impl Step {
    pub(super) fn new((port, frame): (PortName, Frame), random: &mut Random) -> Self {
        let mark = random.pick(&[0, 0, 0x10, MARK, MARK | 0x10]);
        Self { port, frame, mark }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.port)?;
        if let Some(tag) = self.frame.tag {
            write!(f, "tag {tag:#06x} ")?;
        }
        self.frame.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An element with its model.
pub(super) struct Bench {
    rig: Rig,
    pub(super) world: World,
    ifindexes: HashMap<PortName, u32>,
}

impl Bench {
    pub(super) fn new(element: &Element) -> Self {
        let ports: Vec<_> = ports(&element.objects).into_iter().filter(|port| port != TUNNEL_PORT).collect();
        let names: Vec<_> = ports.iter().map(String::as_str).collect();
        let rig = Rig::on(
            &names,
            Settings { flows: FLOWS, tenant_flows: 0, tenant_half_open: 0, ..Settings::default() },
            unhurried(),
            &[],
        );
        // Copies for taps are really sent: somebody has to take them.
        let up: String = names.iter().map(|port| format!("link set {port}-x up\n")).collect();
        rig.netns
            .run(|| {
                std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
                batch(&up)
            })
            .unwrap();
        rig.put(&element.objects);
        let links = rig.netns.run(|| {
            let mut connection = Connection::open()?;
            let mut found = HashMap::new();
            for port in ports.iter().map(String::as_str).chain([TUNNEL_PORT]) {
                if let Some(link) = connection.link(port)? {
                    found.insert(port.parse::<PortName>().unwrap(), link);
                }
            }
            Ok(found)
        });
        let links = links.unwrap();
        let macs = links.iter().map(|(port, link)| (port.clone(), link.mac)).collect();
        let ifindexes = links.iter().map(|(port, link)| (port.clone(), link.ifindex)).collect();
        Self { rig, world: World::new(&element.objects, macs), ifindexes }
    }

    /// With an empty flow table, no fragments remembered, and counters at zero.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce(&mut Run) -> T + Send) -> T {
        self.rig.with_engine(|engine| {
            forget_all(&engine.programs.maps);
            work(&mut Run::new(self, engine))
        })
    }

    /// What the steps end in, if in anything.
    fn failure(&self, steps: &[Step]) -> Option<String> {
        let outcome = self.run(|run| {
            steps.iter().try_for_each(|step| run.step(step).map(drop))?;
            run.finish()
        });
        outcome.err()
    }

    /// As few steps, and as short, as still fail.
    pub(super) fn shrink(&self, mut steps: Vec<Step>, mut failure: String) -> (Vec<Step>, String) {
        let mut chunk = steps.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < steps.len() {
                let fewer: Vec<_> =
                    steps[..at].iter().chain(steps.get(at + chunk..).unwrap_or_default()).cloned().collect();
                match self.failure(&fewer) {
                    Some(still) if !fewer.is_empty() => (steps, failure) = (fewer, still),
                    _ => at += chunk,
                }
            }
            chunk = if chunk == 1 { 0 } else { chunk.div_ceil(2) };
        }
        for at in 0..steps.len() {
            self.shorten(&mut steps, at, &mut failure);
        }
        (steps, failure)
    }

    fn shorten(&self, steps: &mut Vec<Step>, at: usize, failure: &mut String) {
        let mut cut = steps[at].frame.bytes.len() / 2;
        while cut > 0 {
            let mut shorter = steps.clone();
            let length = shorter[at].frame.bytes.len();
            shorter[at].frame.bytes.truncate(length.saturating_sub(cut));
            complete(&mut shorter[at].frame);
            match self.failure(&shorter) {
                Some(still) if shorter[at].frame.bytes.len() < length => {
                    (*steps, *failure) = (shorter, still)
                }
                _ => cut /= 2,
            }
        }
    }
}

/// Nothing is forgotten while we look.
fn unhurried() -> Times {
    let hour = std::time::Duration::from_secs(3600);
    Times {
        alive: hour,
        closed: hour,
        unanswered: hour,
        connection: hour,
        conversation: hour,
        sweep: hour,
        ..Times::default()
    }
}

/// The ports that the objects name.
fn ports(objects: &[Object]) -> Vec<String> {
    let mut names: Vec<_> = objects
        .iter()
        .flat_map(|object| match object {
            Object::Ingress(ingress) => vec![&ingress.port],
            Object::Instance(instance) => vec![&instance.inside.port, &instance.outside.port],
            Object::Tunnel(tunnel) => vec![&tunnel.underlay],
            Object::Policy(policy) => {
                policy.exits.iter().flat_map(|exits| [&exits.up.port, &exits.down.port]).collect()
            }
            _ => vec![],
        })
        .map(|port| port.as_str().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn forget_all(maps: &Maps) {
    maps.flows4.entries().unwrap().iter().for_each(|(key, _)| maps.flows4.remove(key).unwrap());
    maps.flows6.entries().unwrap().iter().for_each(|(key, _)| maps.flows6.remove(key).unwrap());
    maps.loads.entries().unwrap().iter().for_each(|(key, _)| maps.loads.remove(key).unwrap());
    maps.fragments.entries().unwrap().iter().for_each(|(key, _)| maps.fragments.remove(key).unwrap());
    let counters = maps.counters.per_cpu_entries(|_| ()).unwrap();
    counters.iter().for_each(|(key, ())| maps.counters.remove(key).unwrap());
    for (slot, instance) in maps.instances.entries().unwrap() {
        if instance.handle != 0 {
            [2 * slot, 2 * slot + 1]
                .iter()
                .for_each(|at| maps.returned.put_per_cpu(at, &layout::Counter::default()).unwrap());
        }
    }
}

/// Steps from an empty table on.
pub(super) struct Run<'a> {
    bench: &'a Bench,
    engine: &'a Engine,
    model: Model,
    tagger: Tagger,
    expected: HashMap<Counted, u64>,
}

impl<'a> Run<'a> {
    fn new(bench: &'a Bench, engine: &'a Engine) -> Self {
        Self {
            bench,
            engine,
            model: Model::new(bench.world.clone()),
            tagger: Tagger::new(engine.programs.steer.as_fd()),
            expected: HashMap::new(),
        }
    }

    /// One frame, and what became of it; or how it is not what had to.
    pub(super) fn step(&mut self, step: &Step) -> Result<Expected, String> {
        let mut step = step.clone();
        loop {
            let expected = self.model.expect(&step.port, step.frame.clone());
            self.compare(&step, &expected)?;
            safety::check(&self.model.world, &step.port, &step.frame, &expected)
                .map_err(|error| format!("  bypass: {error}\n  {expected}"))?;
            if expected.fate != Fate::Again {
                return Ok(expected);
            }
            step.frame.bytes = expected.bytes;
            complete(&mut step.frame);
        }
    }

    fn compare(&mut self, step: &Step, expected: &Expected) -> Result<(), String> {
        let mut context =
            TestRun { ifindex: self.bench.ifindexes[&step.port], mark: step.mark, ..TestRun::default() };
        let program = match step.frame.tag {
            Some(tag) => {
                context.first_word = tag.into();
                self.tagger.program.as_fd()
            }
            None => self.engine.programs.steer.as_fd(),
        };
        let outcome = test_run_with(program, &context, &step.frame.bytes);
        sweep(&self.engine.programs.sweep, Sweep::Tallies).unwrap();

        let (verdict, released) = match &expected.fate {
            Fate::Passes { released } => (NEXT, *released),
            Fate::Dropped { .. } => (SHOT, false),
            Fate::Sent | Fate::Again => (REDIRECT, false),
        };
        let mark = match claims(&self.model.world, &step.port) {
            true => step.mark & !MARK | if released { MARK } else { 0 },
            false => step.mark,
        };
        let mut wrong = Vec::new();
        if outcome.verdict != verdict {
            wrong.push(format!("verdict {}", outcome.verdict));
        }
        if outcome.mark != mark {
            wrong.push(format!("mark {:#x} and not {mark:#x}", outcome.mark));
        }
        if verdict != SHOT && outcome.frame != expected.bytes {
            wrong.push(format!("left as {}", hex(&outcome.frame)));
        }
        for counted in &expected.counted {
            *self.expected.entry(counted.clone()).or_default() += 1;
        }
        if let Fate::Dropped { path, reasons } = &expected.fate {
            let mut counters = reasons.iter().map(|reason| Counted::Dropped { path: *path, reason: *reason });
            match counters.find(|counted| !self.is_counted(counted)) {
                Some(counted) => *self.expected.entry(counted).or_default() += 1,
                None => wrong.push("not counted as a drop".to_owned()),
            }
        }
        let about = self.expected.keys().filter(|counted| is_about(expected, counted));
        for counted in about.cloned().collect::<Vec<_>>() {
            if !self.is_counted(&counted) {
                wrong.push(format!("not once counted as {counted:?}"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let counted = self.surplus();
        Err(format!("  must be {expected}\n  {}; counted besides {counted:?}", wrong.join(", ")))
    }

    /// Whether a counter is as it must be. What comes back is looked at in the end.
    fn is_counted(&self, counted: &Counted) -> bool {
        if matches!(counted, Counted::Returned { .. }) {
            return true;
        }
        let counters = &self.engine.programs.maps.counters;
        let sum = |values: &[layout::Counter]| values.iter().map(|value| value.packets).sum();
        let count: Option<u64> = counters.get_per_cpu(&counter_key(counted), sum).unwrap();
        count.unwrap_or_default() == self.expected.get(counted).copied().unwrap_or_default()
    }

    /// What was counted and not expected, or the other way round.
    fn surplus(&self) -> Vec<(Counted, i64)> {
        let counted = crate::counters::read(&self.engine.programs.maps).unwrap();
        let counted: HashMap<_, _> = counted.into_iter().map(|it| (it.of, it.packets)).collect();
        let all = counted.keys().chain(self.expected.keys().filter(|of| !counted.contains_key(of)));
        let surplus = |of: &Counted| {
            let count = |counts: &HashMap<Counted, u64>| counts.get(of).copied().unwrap_or_default() as i64;
            (of.clone(), count(&counted) - count(&self.expected))
        };
        let mut surplus: Vec<_> = all.map(surplus).filter(|(_, count)| *count != 0).collect();
        surplus.sort();
        surplus
    }

    /// All counters and all flows are as they must be, and so are the sites' numbers of flows.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let surplus = self.surplus();
        if !surplus.is_empty() {
            return Err(format!("counted besides: {surplus:?}"));
        }
        let flows = self.flows();
        for (key, flow) in &flows {
            if self.model.flows.get(key) != Some(flow) {
                let other = self.model.flows.get(key);
                return Err(format!("the flow {key:?} is {flow:?}, and must be {other:?}"));
            }
        }
        match self.model.flows.keys().find(|key| !flows.contains_key(key)) {
            Some(key) => Err(format!("the flow {key:?} is not remembered")),
            None => self.loads(&flows),
        }
    }

    fn loads(&self, flows: &HashMap<FlowKey, Flow>) -> Result<(), String> {
        for (site, load) in self.engine.programs.maps.loads.entries().unwrap() {
            let site_of = |flow: &&Flow| flow.site == SiteId(site);
            let count = flows.values().filter(site_of).count();
            let half_open = flows.values().filter(site_of).filter(|flow| flow.is_half_open).count();
            if (load.flows as usize, load.half_open as usize) != (count, half_open) {
                return Err(format!(
                    "site {site} has {count} flows, {half_open} half open, and not {load:?}"
                ));
            }
        }
        Ok(())
    }

    /// The engine's flows in the model's words.
    fn flows(&self) -> HashMap<FlowKey, Flow> {
        let maps = &self.engine.programs.maps;
        let v4 = maps.flows4.entries().unwrap().into_iter().map(|(key, entry)| {
            let ends: [IpAddr; 2] = [key.local.into(), key.remote.into()];
            (flow_key(key.realm, ends, key.protocol, [key.local_port, key.remote_port]), entry)
        });
        let v6 = maps.flows6.entries().unwrap().into_iter().map(|(key, entry)| {
            let ends: [IpAddr; 2] = [key.local.into(), key.remote.into()];
            (flow_key(key.realm, ends, key.protocol, [key.local_port, key.remote_port]), entry)
        });
        let instances: HashMap<_, _> = maps.instances.entries().unwrap().into_iter().collect();
        v4.chain(v6).map(|(key, entry)| (key, flow(&entry.flow, &instances))).collect()
    }
}

fn flow_key(realm: u32, ends: [IpAddr; 2], protocol: u8, ports: [u16; 2]) -> FlowKey {
    let from_site = Packet {
        source: ends[0],
        destination: ends[1],
        protocol: Protocol(protocol),
        source_port: ports[0],
        destination_port: ports[1],
        dscp: Default::default(),
    };
    FlowKey { realm: Some(SiteId(realm)).filter(|site| site.0 != 0), from_site }
}

fn flow(entry: &layout::Flow, instances: &HashMap<u32, layout::Instance>) -> Flow {
    use catena_model::forwarding::Direction::{Down, Up};
    let bits = |up: u32, down: u32| {
        [(Up, up), (Down, down)]
            .into_iter()
            .filter(|(_, bit)| entry.state & bit != 0)
            .map(|it| it.0)
            .collect()
    };
    let choice = |handle: &u32| match *handle {
        0 => Choice::Nobody,
        0xffff_ffff => Choice::Skipped,
        handle => Choice::Is(InstanceId(instances[&slot_of(handle)].id)),
    };
    model::Flow {
        path: catena_model::forwarding::PathId(entry.path),
        site: SiteId(entry.site),
        choices: entry.instances[..entry.count as usize].iter().map(choice).collect(),
        seen: bits(1, 2),
        finished: bits(4, 8),
        was_reset: entry.state & 16 != 0,
        is_half_open: entry.state & 32 != 0,
    }
}

/// Whether the counter has to do with what is expected of a frame.
fn is_about(expected: &Expected, counted: &Counted) -> bool {
    let is_its_drop = match (&expected.fate, counted) {
        (Fate::Dropped { path, reasons }, Counted::Dropped { path: of, reason }) => {
            path == of && reasons.contains(reason)
        }
        _ => false,
    };
    is_its_drop || expected.counted.contains(counted)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn counter_key(counted: &Counted) -> layout::CounterKey {
    let key = |counted, of| layout::CounterKey { counted, of, ..Default::default() };
    match *counted {
        Counted::Hop { path, position, instance, direction } => layout::CounterKey {
            direction: direction as u8,
            position,
            instance: instance.0,
            ..key(0, path.0)
        },
        Counted::Exit { path, direction } => {
            layout::CounterKey { direction: direction as u8, ..key(1, path.0) }
        }
        Counted::Transit { site, direction } => {
            layout::CounterKey { direction: direction as u8, ..key(2, site.0) }
        }
        Counted::Claimed { site, direction } => {
            layout::CounterKey { direction: direction as u8, ..key(3, site.0) }
        }
        Counted::Encapsulated { site } => key(4, site.0),
        Counted::Decapsulated { site } => key(5, site.0),
        Counted::Dropped { path, reason } => layout::CounterKey {
            position: reason_number(reason),
            ..key(6, path.map(|path| path.0).unwrap_or_default())
        },
        Counted::Returned { .. } => panic!("in another map"),
    }
}

fn reason_number(reason: DropReason) -> u8 {
    reason as u8
}

/// A program that puts a VLAN tag beside a frame, as the kernel has it of a frame that came in, and goes on with another
/// program: `BPF_PROG_TEST_RUN` has no word for that. The tag is the first word of the context's control block.
pub(in crate::tests) struct Tagger {
    program: OwnedFd,
    _next: OwnedFd,
}

impl Tagger {
    pub(in crate::tests) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    pub(in crate::tests) fn new(next: BorrowedFd<'_>) -> Self {
        // SAFETY: no pointer but to the name.
        let array = unsafe {
            let array = libbpf_sys::bpf_map_create(
                libbpf_sys::BPF_MAP_TYPE_PROG_ARRAY,
                c"next".as_ptr(),
                4,
                4,
                1,
                std::ptr::null(),
            );
            assert!(array >= 0, "{}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(array)
        };
        let (zero, program) = (0_u32, next.as_raw_fd());
        // SAFETY: key and value are of four bytes.
        let outcome = unsafe {
            libbpf_sys::bpf_map_update_elem(
                array.as_raw_fd(),
                (&raw const zero).cast(),
                (&raw const program).cast(),
                0,
            )
        };
        assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
        Self { program: load(&tagging(array.as_raw_fd())), _next: array }
    }
}

/// `skb_vlan_push(skb, 802.1Q, skb->cb[0]); tail_call(skb, next, 0);`
fn tagging(next: i32) -> Vec<u64> {
    const CB: u64 = 48;
    const ETH_P_8021Q_BE: u64 = 0x0081;
    const VLAN_PUSH: u64 = 18;
    const TAIL_CALL: u64 = 12;
    let instruction = |code: u64, to: u64, from: u64, offset: u64, immediate: u64| {
        code | to << 8 | from << 12 | offset << 16 | immediate << 32
    };
    vec![
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0x61, 3, 1, CB, 0),
        instruction(0xb7, 2, 0, 0, ETH_P_8021Q_BE),
        instruction(0x85, 0, 0, 0, VLAN_PUSH),
        instruction(0xbf, 1, 6, 0, 0),
        instruction(0x18, 2, 1, 0, next as u64),
        0,
        instruction(0xb7, 3, 0, 0, 0),
        instruction(0x85, 0, 0, 0, TAIL_CALL),
        instruction(0xb7, 0, 0, 0, 99),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

fn load(instructions: &[u64]) -> OwnedFd {
    // SAFETY: the instructions live until the call returns; there are no options.
    unsafe {
        let program = libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"tagger".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            instructions.as_ptr().cast(),
            instructions.len() as u64,
            std::ptr::null_mut(),
        );
        assert!(program >= 0, "{}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(program)
    }
}
