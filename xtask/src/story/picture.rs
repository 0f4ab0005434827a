//! A picture of the path, drawn after what `catena trace` says.

use crate::story::world::{Catena, Family, INSTANCES};

/// Prints the way of a web request of alice's and of its answer.
pub fn print(catena: &Catena, family: Family) {
    let arguments = ["--protocol", "tcp", "--port", "80", "--source-port", "20001"];
    match catena.trace(family.alice, family.server, &arguments) {
        Ok([there, back]) => {
            println!("\n{}", drawn("there", &there.nodes));
            println!("{}", drawn("back", &back.nodes));
        }
        // The checks say whether trace works; here there is only nothing to see.
        Err(error) => println!("\n  (no picture: {error:#})\n"),
    }
}

/// The way on one line, the functions beneath the switch that steers to them:
///
/// ```text
///   there  alice ─ access-a ─ edge ─ qrouter-1234 ─ br-int ─ gateway ─ core ─ internet
///                                                   └ fw-1 ─ ips-2 ─ web-1 ┘
/// ```
fn drawn(what: &str, way: &[String]) -> String {
    let mut line = format!("  {what:<5}  ");
    let mut beneath = None;
    let mut functions: Vec<&str> = Vec::new();
    let mut nodes = 0;
    let mut last = "";
    for name in way {
        if INSTANCES.contains(&name.as_str()) {
            functions.push(name);
            continue;
        }
        // The switch is visited between functions too.
        if name == last {
            continue;
        }
        if nodes > 0 {
            line += " ─ ";
        }
        if functions.is_empty() {
            beneath = Some(line.chars().count());
        }
        line += name;
        nodes += 1;
        last = name;
    }
    let Some(column) = beneath.filter(|_| !functions.is_empty()) else { return line + "\n" };
    format!("{line}\n{}└ {} ┘\n", " ".repeat(column), functions.join(" ─ "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_hang_beneath_their_switch() {
        let way = ["alice", "edge", "br-int", "fw-1", "ips-2", "gateway"].map(str::to_owned);
        assert_eq!(
            drawn("there", &way),
            "  there  alice ─ edge ─ br-int ─ gateway\n                        └ fw-1 ─ ips-2 ┘\n"
        );
        assert_eq!(drawn("back", &["a".to_owned()]), "  back   a\n");
    }
}
