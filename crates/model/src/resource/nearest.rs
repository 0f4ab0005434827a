//! "Did you mean": the known name that is most like one that is not known.

use std::cell::Cell;

/// The most like `wanted` of `known`, if any is like it at all.
pub(super) fn nearest<'k>(wanted: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // One slip in three characters is still the same word; so is one that was not finished.
    let tolerance = (wanted.chars().count() / 3).max(1);
    let unfinished = |name: &str| wanted.len() >= 3 && (name.starts_with(wanted) || wanted.starts_with(name));
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| {
            *distance <= tolerance || unfinished(name) || name.eq_ignore_ascii_case(wanted)
        })
        .min()
        .map(|(_, name)| name)
}

/// Suggests names until it has compared enough: ten thousand unknown names among ten thousand known ones would take
/// minutes, and nobody reads so many suggestions.
pub(super) struct Suggestions {
    comparisons_left: Cell<usize>,
}

impl Default for Suggestions {
    fn default() -> Self {
        Self { comparisons_left: Cell::new(100_000) }
    }
}

impl Suggestions {
    /// The way out of an unknown name: the one that was meant, or else `otherwise`.
    pub fn help<'k>(
        &self,
        wanted: &str,
        known: impl Iterator<Item = &'k str>,
        otherwise: impl FnOnce() -> String,
    ) -> String {
        let mut left = self.comparisons_left.get();
        let meant = nearest(wanted, known.take(left).inspect(|_| left -= 1));
        self.comparisons_left.set(left);
        match meant {
            Some(name) => format!("did you mean `{name}`?"),
            None => otherwise(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["instances", "insertion"];
        assert_eq!(nearest("instnaces", known), Some("instances"));
        assert_eq!(nearest("Instances", known), Some("instances"));
        assert_eq!(nearest("insert", known), Some("insertion"));
        assert_eq!(nearest("ports", known), None);
    }

    #[test]
    fn suggesting_ends_when_it_has_cost_enough() {
        let known: Vec<String> = (0..100_000).map(|n| format!("tenant-{n}")).collect();
        let suggestions = Suggestions::default();
        let ask = || suggestions.help("tenant-x7", known.iter().map(String::as_str), || "none".into());
        assert!(ask().contains("did you mean"));
        assert_eq!(ask(), "none");
    }
}
