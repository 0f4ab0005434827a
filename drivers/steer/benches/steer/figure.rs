//! A figure: its key, what it should be, what it is.

use serde_json::{Map, Value, json};

use crate::pairs::Pairs;
use crate::statistics::Estimate;

/// What a figure is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    pub fn value(self) -> f64 {
        match self {
            Bar::AtLeast(value) | Bar::AtMost(value) => value,
        }
    }

    pub fn is_reached_by(self, value: f64) -> bool {
        match self {
            Bar::AtLeast(bar) => value >= bar,
            Bar::AtMost(bar) => value <= bar,
        }
    }
}

/// What is measured, before it is.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    /// For people: two things with a ÷ between them, or one thing.
    pub what: &'static str,
    /// Of a ratio there is none.
    pub unit: Option<&'static str>,
    pub bar: Bar,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Figure {
    pub key: Key,
    pub estimate: Estimate,
    /// How many samples or pairs of slices the estimate is of.
    pub samples: usize,
    /// Raw, sample by sample; of a ratio both sides.
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
    /// What else was measured on the way.
    pub details: Map<String, Value>,
}

impl Figure {
    pub fn ratio(key: Key, pairs: Pairs) -> Self {
        Self {
            key,
            estimate: pairs.ratio(),
            samples: pairs.ours.len(),
            ours: pairs.ours,
            theirs: pairs.theirs,
            details: Map::new(),
        }
    }

    pub fn amount(key: Key, samples: Vec<f64>) -> Self {
        Self {
            key,
            estimate: Estimate::of(&samples),
            samples: samples.len(),
            ours: samples,
            theirs: Vec::new(),
            details: Map::new(),
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub fn is_ok(&self) -> bool {
        self.key.bar.is_reached_by(self.estimate.median)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "what": self.key.what,
            "median": self.estimate.median,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "pairs": self.samples,
            "unit": self.key.unit.unwrap_or("ratio"),
            "bar": self.key.bar.value(),
            "bar_is": if matches!(self.key.bar, Bar::AtLeast(_)) { "at least" } else { "at most" },
            "ok": self.is_ok(),
            "ours": self.ours,
            "theirs": self.theirs,
            "details": self.details,
        })
    }
}
