//! The nftables table of an element: what is in it, in the words of nft(8), and what makes one of another.
//!
//! Statements are those of the `nftables` crate. Tables, chains, sets and elements are written as they stand in
//! libnftables-json(5): the crate knows no maps of verdicts.

use std::collections::BTreeMap;

use nftables::stmt::Statement;
use serde_json::{Value, json};

/// The name of the table. It is of family `inet`, and all in it is ours.
pub(crate) const TABLE: &str = catena_driver::netlink::OUR_NFTABLES_TABLE;

/// One rule of a chain.
pub(crate) type Statements = Vec<Statement<'static>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ruleset {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
    /// There is something that we did not make, or that we could not read.
    pub(crate) odd: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chain {
    /// `None` for one that is only gone to.
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Statements>,
}

/// Where the kernel enters a chain, and in which place among others: a filter that accepts what it does not drop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) priority: i32,
}

/// A set, or a map of verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// The types of the fields that a key consists of: `ipv4_addr`, `ifname`, …
    pub(crate) key: Vec<String>,
    pub(crate) is_map: bool,
    pub(crate) elements: BTreeMap<Vec<String>, Element>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    /// The chain that a packet with this key goes to; `None` in a set.
    pub(crate) goto: Option<String>,
    pub(crate) comment: Option<String>,
}

impl Ruleset {
    /// What `nft -jn list table` told.
    pub(crate) fn read(objects: &[Value]) -> Self {
        let mut ruleset = Self::default();
        for object in objects {
            ruleset.odd |= ruleset.add(object).is_none();
        }
        ruleset
    }

    /// `None` if it is nothing that we make.
    fn add(&mut self, object: &Value) -> Option<()> {
        let (kind, body) = object.as_object()?.iter().next()?;
        let name = || body["name"].as_str().map(str::to_owned);
        match kind.as_str() {
            "metainfo" | "table" => {}
            "chain" => self.chains.entry(name()?).or_default().hook = read_hook(body)?,
            "rule" => {
                let chain = self.chains.entry(body["chain"].as_str()?.to_owned()).or_default();
                chain.rules.push(serde_json::from_value(body["expr"].clone()).ok()?);
            }
            "map" | "set" => drop(self.sets.insert(name()?, read_set(kind == "map", body)?)),
            _ => return None,
        }
        Some(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty()
    }

    /// Whether what both have can be made of one another.
    fn can_become(&self, other: &Ruleset) -> bool {
        let chains = other
            .chains
            .iter()
            .all(|(name, chain)| self.chains.get(name).is_none_or(|own| own.hook == chain.hook));
        let sets =
            other.sets.iter().all(|(name, set)| self.sets.get(name).is_none_or(|own| own.has_form_of(set)));
        !self.odd && chains && sets
    }
}

impl Set {
    fn has_form_of(&self, other: &Set) -> bool {
        self.is_map == other.is_map && self.key == other.key
    }
}

fn read_hook(body: &Value) -> Option<Option<Hook>> {
    let Some(name) = body["hook"].as_str() else { return Some(None) };
    let priority = i32::try_from(body["prio"].as_i64()?).ok()?;
    let hook = Hook { name: name.to_owned(), priority };
    (body["type"] == "filter" && body["policy"] == "accept").then_some(Some(hook))
}

fn read_set(is_map: bool, body: &Value) -> Option<Set> {
    // One with flags, a timeout or a size is not of our making.
    const KNOWN: [&str; 7] = ["family", "name", "table", "type", "handle", "map", "elem"];
    let known = body.as_object()?.keys().all(|key| KNOWN.contains(&key.as_str()));
    let verdicts = !is_map || body["map"] == "verdict";
    let key = words(&body["type"])?;
    let elements = body["elem"].as_array().map_or(&[][..], Vec::as_slice);
    let elements = elements.iter().map(|element| read_element(is_map, element)).collect::<Option<_>>()?;
    (known && verdicts).then_some(Set { key, is_map, elements })
}

/// In a map, an element and its verdict; in a set, the element. An element with a comment is an object of its own.
fn read_element(is_map: bool, element: &Value) -> Option<(Vec<String>, Element)> {
    let (element, goto) = match element.as_array().map(Vec::as_slice) {
        Some([element, verdict]) if is_map => (element, Some(verdict["goto"]["target"].as_str()?.to_owned())),
        None if !is_map => (element, None),
        _ => return None,
    };
    let (key, comment) = match element.get("elem") {
        Some(full) => (&full["val"], full["comment"].as_str().map(str::to_owned)),
        None => (element, None),
    };
    Some((words(key.get("concat").unwrap_or(key))?, Element { goto, comment }))
}

/// A word or number, or several.
fn words(value: &Value) -> Option<Vec<String>> {
    let word = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    match value {
        Value::Array(several) => several.iter().map(word).collect(),
        single => Some(vec![word(single)?]),
    }
}

/// What makes `to` of what is there (`None`: no table), in one transaction; nothing if nothing is to be done.
pub(crate) fn transaction(from: Option<&Ruleset>, to: &Ruleset) -> Vec<Value> {
    let table = json!({"table": {"family": "inet", "name": TABLE}});
    if to.is_empty() {
        return from.map(|_| json!({"delete": table})).into_iter().collect();
    }
    if from == Some(to) {
        return Vec::new();
    }
    let nothing = Ruleset::default();
    let mut commands = Vec::new();
    let from = match from {
        Some(from) if from.can_become(to) => from,
        Some(_) => {
            commands.push(json!({"delete": table}));
            &nothing
        }
        None => &nothing,
    };
    commands.push(json!({"add": table}));
    edit(from, to, &mut commands);
    commands
}

/// What is used comes before its users, and goes after them.
fn edit(from: &Ruleset, to: &Ruleset, commands: &mut Vec<Value>) {
    for (name, chain) in to.chains.iter().filter(|(name, _)| !from.chains.contains_key(*name)) {
        commands.push(json!({"add": {"chain": chain_object(name, chain)}}));
    }
    for (name, set) in &to.sets {
        if !from.sets.contains_key(name) {
            commands.push(json!({"add": set_object(name, set)}));
        }
        edit_elements(name, from.sets.get(name), set, commands);
    }
    for (name, chain) in &to.chains {
        let installed = from.chains.get(name).map_or(&[][..], |chain| &chain.rules);
        if installed != chain.rules {
            commands.extend((!installed.is_empty()).then(|| flush(name)));
            commands.extend(chain.rules.iter().map(|rule| add_rule(name, rule)));
        }
    }
    for (name, set) in from.sets.iter().filter(|(name, _)| !to.sets.contains_key(*name)) {
        commands.push(json!({"delete": set_object(name, set)}));
    }
    for name in from.chains.keys().filter(|name| !to.chains.contains_key(*name)) {
        commands.extend([flush(name), json!({"delete": {"chain": named(name)}})]);
    }
}

fn edit_elements(name: &str, from: Option<&Set>, to: &Set, commands: &mut Vec<Value>) {
    let nothing = BTreeMap::new();
    let from = from.map_or(&nothing, |set| &set.elements);
    let gone = from.iter().filter(|(key, element)| to.elements.get(*key) != Some(*element));
    let gone: Vec<_> = gone.map(|(key, _)| key_object(key)).collect();
    let new = to.elements.iter().filter(|(key, element)| from.get(*key) != Some(*element));
    let new: Vec<_> = new.map(|(key, element)| element_object(key, element)).collect();
    for (command, elements) in [("delete", gone), ("add", new)] {
        if !elements.is_empty() {
            let mut object = named(name);
            object["elem"] = elements.into();
            commands.push(json!({command: {"element": object}}));
        }
    }
}

/// What tells one of our objects from the others of its kind.
fn named(name: &str) -> Value {
    json!({"family": "inet", "table": TABLE, "name": name})
}

fn flush(chain: &str) -> Value {
    json!({"flush": {"chain": named(chain)}})
}

fn add_rule(chain: &str, rule: &Statements) -> Value {
    json!({"add": {"rule": {"family": "inet", "table": TABLE, "chain": chain, "expr": rule}}})
}

fn chain_object(name: &str, chain: &Chain) -> Value {
    let mut object = named(name);
    if let Some(Hook { name, priority }) = &chain.hook {
        object["hook"] = name.as_str().into();
        object["prio"] = (*priority).into();
        object["type"] = "filter".into();
        object["policy"] = "accept".into();
    }
    object
}

fn set_object(name: &str, set: &Set) -> Value {
    let mut object = named(name);
    object["type"] = match &set.key[..] {
        [single] => single.as_str().into(),
        several => several.into(),
    };
    match set.is_map {
        true => {
            object["map"] = "verdict".into();
            json!({"map": object})
        }
        false => json!({"set": object}),
    }
}

fn key_object(key: &[String]) -> Value {
    match key {
        [single] => single.as_str().into(),
        several => json!({"concat": several}),
    }
}

fn element_object(key: &[String], element: &Element) -> Value {
    let mut object = json!({"elem": {"val": key_object(key)}});
    if let Some(comment) = &element.comment {
        object["elem"]["comment"] = comment.as_str().into();
    }
    match &element.goto {
        Some(chain) => json!([object, {"goto": {"target": chain}}]),
        None => object,
    }
}
