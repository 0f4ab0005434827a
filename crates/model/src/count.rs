//! How many of what, in words.

/// `1 chain`, `2 chains`.
pub fn counted(number: usize, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_alone() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "chain")), ["0 chains", "1 chain", "2 chains"]);
    }
}
