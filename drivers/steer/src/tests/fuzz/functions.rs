//! What comes out of functions.

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{Direction, Insertion, Instance, PathId, SiteId};
use catena_model::name::PortName;

use super::model::*;
use super::objects::directions_out_of;
use super::places::{NSH, Told, nsh_place, read_tag};
use super::sight::{ETHERNET, IPV4, IPV6, Scope, Seen, Sight, array, word};

impl Model {
    pub(super) fn out_of_function(&mut self, way: Way, port: &PortName, function: &Instance) -> Expected {
        match function.insertion {
            Insertion::L3 if self.is_for_us(port, &way.frame) => self.out_of_routed(way, port, function),
            Insertion::L3 => way.passes(),
            Insertion::Tap => match self.firsts.see(&self.world, &way.frame, &Scope::Port(port.clone())) {
                Sight::Other => way.passes(),
                Sight::Is(seen) if seen.is_discovery => way.passes(),
                Sight::Is(_) => way.dropped(None, DropReason::Unexpected),
                Sight::Broken => way.dropped(None, DropReason::Malformed),
            },
            Insertion::L2 => match read_tag(&way.frame) {
                Some((path, position, direction)) => {
                    let told = Told { path, position: Some(position), direction };
                    self.out_of_telling(way, port, function, Ok(told))
                }
                None => way.passes(),
            },
            Insertion::Vlan => self.out_of_vlan(way, port, function),
            Insertion::Nsh(_) => self.out_of_nsh(way, port, function),
        }
    }

    fn out_of_vlan(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        let Some(vlan) = way.frame.vlan() else { return way.passes() };
        let path = self.world.paths.values().find(|path| path.vlan.is_some_and(|id| id.get() == vlan));
        let direction = match (function.is_one_armed(), read_tag(&way.frame)) {
            (false, _) => directions_out_of(function, port).first().copied(),
            (true, tag) => tag.map(|(_, _, direction)| direction),
        };
        let told = match (path, direction) {
            (Some(path), Some(direction)) => Ok(Told { path: path.id, position: None, direction }),
            _ => Err(Lie { path: None, reason: DropReason::Unexpected }),
        };
        if told.is_ok() {
            way.frame.tag = None;
        }
        self.out_of_telling(way, port, function, told)
    }

    fn out_of_nsh(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        if way.frame.ether_type() == NSH {
            let next = way.frame.bytes.get(ETHERNET..ETHERNET + 8).map(|header| header[3]);
            let ether_type = match next {
                Some(1) => IPV4,
                Some(2) => IPV6,
                _ => return way.dropped(None, DropReason::Malformed),
            };
            way.frame.bytes[6..12].copy_from_slice(&[0x02, 0xcb, 0, 0, 0, 0]);
            way.frame.bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
            return way.end(Fate::Again);
        }
        if way.frame.source()[..2] != [0x02, 0xcb] {
            return way.passes();
        }
        let Some(header) = way.frame.bytes.get(ETHERNET..ETHERNET + 8) else {
            return way.dropped(None, DropReason::Unexpected);
        };
        let first = word(header, 0);
        let length = 4 * usize::from(first & 0x3f);
        let [_, a, b, c] = array(header, 3);
        let path = PathId(u32::from_be_bytes([0, a, b, c]));
        let installed = self.world.is_installed(path);
        let fits = match header[2] {
            1 => length == 24,
            2 => length >= 8,
            _ => false,
        };
        let minimum = if way.frame.ether_type() == IPV4 { 20 } else { 40 };
        let is_whole = way.frame.bytes.len() >= ETHERNET + length + minimum;
        let place = nsh_place(header[7]);
        let agrees =
            place.is_none_or(|(_, direction)| directions_out_of(function, port).contains(&direction));
        let is_wrong = first & 0xe000 != 0 || !fits || !is_whole || !agrees;
        let Some((position, direction)) = place else {
            // It may be wrong in both ways.
            let mut reasons = vec![DropReason::ServiceIndex];
            reasons.extend(is_wrong.then_some(DropReason::Unexpected));
            return way.end(Fate::Dropped { path: installed, reasons });
        };
        if is_wrong {
            return way.dropped(installed, DropReason::Unexpected);
        }
        way.frame.bytes.drain(ETHERNET..ETHERNET + length);
        self.out_of_telling(way, port, function, Ok(Told { path, position: Some(position), direction }))
    }

    /// From a function whose frames say where they have been.
    fn out_of_telling(
        &mut self,
        way: Way,
        port: &PortName,
        function: &Instance,
        told: Result<Told, Lie>,
    ) -> Expected {
        let told = match told {
            Ok(told) if !directions_out_of(function, port).contains(&told.direction) => {
                Err(Lie { path: self.world.is_installed(told.path), reason: DropReason::Unexpected })
            }
            other => other,
        };
        let path = match &told {
            Ok(told) => self.world.is_installed(told.path),
            Err(lie) => lie.path,
        };
        let scope = match &told {
            Ok(told) => Scope::Path(told.path),
            Err(_) => Scope::Port(port.clone()),
        };
        let seen = match self.firsts.see(&self.world, &way.frame, &scope) {
            // It was given nothing but IP.
            Sight::Other if told.is_ok() => return way.dropped(path, DropReason::Unexpected),
            Sight::Other => return way.passes(),
            Sight::Broken => return way.dropped(path, DropReason::Malformed),
            Sight::Is(seen) if seen.is_discovery && told.is_err() => return way.passes(),
            Sight::Is(seen) => seen,
        };
        let told = match told {
            Ok(told) => told,
            Err(lie) => return way.dropped(lie.path, lie.reason),
        };
        if path.is_none() {
            return way.dropped(None, DropReason::Missing);
        }
        if let Some(reason) = seen.unknown {
            return way.dropped(path, reason);
        }
        let site = self.world.paths[&told.path].site;
        let realm = Some(site).filter(|site| self.world.is_told_by_port(*site));
        let key = flow_key(realm, &seen.packet, told.direction);
        let remembered = self.holds(&key, &seen, told.direction) && self.flows[&key].path == told.path;
        let followed = if remembered {
            Followed { entry: Some(key), flow: self.flows[&key].clone() }
        } else {
            Followed { entry: None, flow: self.begin(told.path, &seen, told.direction) }
        };
        let position = told.position.or_else(|| position_of(&followed.flow, function.id));
        match position {
            Some(position) if followed.flow.choices.get(position) == Some(&Choice::Is(function.id)) => {
                self.go_on(way, &seen, followed, function, position, told.direction)
            }
            _ => way.dropped(path, DropReason::Unexpected),
        }
    }

    fn go_on(
        &mut self,
        mut way: Way,
        seen: &Seen,
        followed: Followed,
        function: &Instance,
        position: usize,
        direction: Direction,
    ) -> Expected {
        way.counted.push(Counted::Returned { instance: function.id, direction });
        self.forward(way, seen, followed, next(position, direction), direction)
    }

    fn out_of_routed(&mut self, mut way: Way, port: &PortName, function: &Instance) -> Expected {
        let seen = match self.firsts.see(&self.world, &way.frame, &Scope::Port(port.clone())) {
            Sight::Other => return way.passes(),
            Sight::Broken => return way.dropped(None, DropReason::Malformed),
            Sight::Is(seen) if seen.is_discovery => return way.passes(),
            Sight::Is(seen) => seen,
        };
        let users: Vec<_> = self.world.paths_through(function.id).cloned().collect();
        let told = users.first().map(|path| path.site).filter(|site| self.world.is_told_by_port(*site));
        let directions = directions_out_of(function, port);
        if seen.unknown.is_none() {
            for direction in &directions {
                if function.is_one_armed() && self.is_from_site(&seen, *direction) {
                    continue;
                }
                match self.back_from_routed(way, &seen, function, told, *direction) {
                    Ok(expected) => return expected,
                    Err(back) => way = back,
                }
            }
        }
        let ours = function.rewrites
            || told.is_some()
            || [seen.packet.source, seen.packet.destination]
                .into_iter()
                .any(|end| self.world.site_of(end).is_some());
        if let Some(reason) = seen.unknown {
            return if ours { way.dropped(None, reason) } else { way.passes() };
        }
        if function.rewrites
            && let Some(path) = users.last()
        {
            let direction = directions[0];
            return self.rewritten(way, &seen, function, path.id, told, direction);
        }
        if ours { way.dropped(None, DropReason::Unexpected) } else { way.passes() }
    }

    fn back_from_routed(
        &mut self,
        way: Way,
        seen: &Seen,
        function: &Instance,
        told: Option<SiteId>,
        direction: Direction,
    ) -> Result<Expected, Way> {
        let key = flow_key(told, &seen.packet, direction);
        let known = self.holds(&key, seen, direction).then(|| self.flows[&key].clone());
        // One site's to another, turned round by the function?
        if told.is_none()
            && self.is_from_site(seen, direction)
            && !known.as_ref().is_some_and(|flow| flow.seen.contains(&direction))
        {
            return Err(way);
        }
        let followed = if let Some(flow) = known {
            Followed { entry: Some(key), flow }
        } else {
            let Some(site) = told.or_else(|| self.site_of(seen, direction)) else { return Err(way) };
            match self.decide(site, seen, direction) {
                Decision::Steered(path) if self.world.paths.contains_key(&path) => {
                    Followed { entry: None, flow: self.begin(path, seen, direction) }
                }
                _ => return Err(way),
            }
        };
        match position_of(&followed.flow, function.id) {
            Some(position) => {
                if let Some(key) = followed.entry.as_ref().filter(|_| function.rewrites) {
                    self.touch(key, seen, direction);
                }
                Ok(self.go_on(way, seen, followed, function, position, direction))
            }
            None => Ok(way.dropped(Some(followed.flow.path), DropReason::Unexpected)),
        }
    }

    /// What a function that changes addresses made of a packet: a flow of its own, from that function on.
    fn rewritten(
        &mut self,
        way: Way,
        seen: &Seen,
        function: &Instance,
        path: PathId,
        told: Option<SiteId>,
        direction: Direction,
    ) -> Expected {
        if direction == Direction::Down || seen.is_error {
            return way.dropped(Some(path), DropReason::Unexpected);
        }
        let mut flow = self.begin(path, seen, direction);
        let rewrites = |choice: &Choice| match choice {
            Choice::Is(id) => self.world.instances[id].rewrites,
            _ => false,
        };
        let Some(position) = flow.choices.iter().position(rewrites) else {
            return way.dropped(Some(path), DropReason::Unexpected);
        };
        flow.choices[position] = Choice::Is(function.id);
        let key = flow_key(told, &seen.packet, direction);
        self.flows.insert(key, flow.clone());
        self.go_on(way, seen, Followed { entry: Some(key), flow }, function, position, direction)
    }
}

/// What is told contradicts what is installed.
struct Lie {
    path: Option<PathId>,
    reason: DropReason,
}
