//! The command line, as `--help` shows it.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use catena_api::types::DropReason;
use catena_model::address::{Dscp, Protocol};
use catena_model::name::{ChainName, NodeName, TenantName};
use catena_verify::Property;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed; the message says whether anything was changed
  2  the command line is wrong
  3  the controller cannot be reached
  `verify` has more to say: 0 proven, 1 violated, 2 not decided (see `catena verify --help`).
  `lab run` and `lab exec` end with the exit code of their command.

Environment:
  CATENA_SOCKET  the controller's socket, as --socket
  CATENA_STATE   where the controller keeps what it was told, as --state
  RUST_LOG       what is logged to standard error: error, warn, info, debug, or by part,
                 such as catena_control=debug
  NO_COLOR       if set, no colours; otherwise there are colours on a terminal only";

const VERIFY_HELP: &str = "\
Examples:
  catena verify -f examples/paper
  catena verify --observed --tenant acme
  catena verify --observed --replay

Exit codes:
  0  proven
  1  violated, or it could not be verified; the message says which
  2  not decided: something is not understood, and the answer says what; with --replay also: a packet
     went another way than was predicted, or could not be sent; or the command line is wrong
  3  the controller cannot be reached";

/// Carries a remote enterprise's traffic through an ordered chain of security functions and back
#[derive(Parser, Debug)]
#[command(name = "catena", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Arguments {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// How the controller is asked.
#[derive(Args, Debug, Clone)]
pub struct Connection {
    /// The controller's unix socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "CATENA_SOCKET",
        hide_env = true,
        default_value = "/run/catena/catena.sock",
        help_heading = "Controller"
    )]
    pub socket: PathBuf,
    /// Do the work in this process, without a daemon; the default in a lab where none runs
    #[arg(long, global = true, help_heading = "Controller")]
    pub local: bool,
    /// Where the controller keeps what it was told, for `serve` and --local
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "CATENA_STATE",
        hide_env = true,
        default_value = "/var/lib/catena",
        help_heading = "Controller"
    )]
    pub state: PathBuf,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check files without a controller and without touching anything
    #[command(after_help = "Example:\n  catena validate -f examples/paper")]
    Validate(Validate),
    /// Show what an apply would change, element by element, in order
    ///
    /// Verifies what there would be, and refuses what would break a chain's promise, with a packet that shows it. Warns of
    /// what was asked for before and is not installed; without files, that is all it says.
    #[command(after_help = "Example:\n  catena plan -f examples/paper/chain.yaml")]
    Plan(Plan),
    /// Create or change resources; returns once they are installed and this has been confirmed
    ///
    /// What there would be is verified first. What would break a chain's promise is refused before anything is touched, with
    /// a packet that shows it; what was broken before, or cannot be decided, is told and refuses nothing.
    #[command(
        after_help = "Examples:\n  catena apply -f network.yaml -f chain.yaml\n  cat chain.yaml | catena apply -f -"
    )]
    Apply(Apply),
    /// Delete resources
    #[command(after_help = "Examples:\n  catena delete -f chain.yaml\n  catena delete chain acme-web")]
    Delete(Delete),
    /// List resources, counters, or what was dropped and why
    #[command(after_help = help_of_get())]
    Get(Get),
    /// Show one resource with what has become of it: a chain's hops and counters, a function's packets in and out
    #[command(after_help = "Examples:\n  catena describe chain acme-web\n  catena describe function ips")]
    Describe(Describe),
    /// Say in plain words and a picture what a chain does with whose traffic, and what is proven of it
    #[command(after_help = "Example:\n  catena explain acme-web")]
    Explain(Explain),
    /// Show rates as they are now: of chains, hops, instances and drops
    ///
    /// On a terminal it goes on until q is pressed, and says which keys it knows. Elsewhere, and with --once, it measures
    /// for one interval and prints what it found.
    #[command(after_help = "Examples:\n  catena top\n  catena top drops\n  catena top --once -o json")]
    Top(Top),
    /// Show a packet's way and its reply's, hop by hop, with the rule that decided at each
    #[command(
        after_help = "Example:\n  catena trace --from 172.16.1.10 --to 198.51.100.10 --protocol tcp --port 80"
    )]
    Trace(Trace),
    /// Prove that chains hold, for all packets, or show a packet for which one does not
    ///
    /// Of what was asked for, over the routing that the elements have now; with --observed, of what is installed now; with
    /// files, of what they ask for, without a controller.
    #[command(after_help = VERIFY_HELP)]
    Verify(Verify),
    /// Show whether everything is installed as asked for
    #[command(after_help = "Example:\n  catena status -o json")]
    Status(OutputArgs),
    /// Show what happened: applies, drift, repairs
    #[command(after_help = "Example:\n  catena events --follow")]
    Events(Events),
    /// Run the controller
    ///
    /// It keeps what it was told in --state and answers on --socket. Packets go on flowing along the last installed
    /// state when it ends, however it ends; when it starts again it adopts what is installed.
    #[command(after_help = "Example:\n  catena serve --listen 127.0.0.1:8642")]
    Serve(Serve),
    /// Build whole networks from a file, in Linux network namespaces on this machine
    #[command(subcommand)]
    Lab(Lab),
}

/// Where resources are written.
#[derive(Args, Debug)]
pub struct Files {
    /// A file, a folder of .yaml files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub struct OptionalFiles {
    /// A file, a folder of .yaml files, or - for standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
}

#[derive(Args, Debug, Clone, Copy)]
pub struct OutputArgs {
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people
    #[default]
    Table,
    Json,
    Yaml,
}

#[derive(Args, Debug)]
pub struct Validate {
    #[command(flatten)]
    pub files: Files,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Plan {
    #[command(flatten)]
    pub files: OptionalFiles,
    #[command(flatten)]
    pub allowance: Allowance,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Apply {
    #[command(flatten)]
    pub files: Files,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub allowance: Allowance,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What the verifier finds broken and the operator wants all the same.
#[derive(Args, Debug)]
pub struct Allowance {
    /// Let the change break this promise of chains; may be repeated
    ///
    /// For all chains of which this breaks it, and for the packets for which it does. It is put on record with who asked and
    /// when, and `catena status` shows it until all holds at that site. `catena verify` says what is broken how.
    #[arg(long, value_name = "NAME", value_parser = properties())]
    pub allow: Vec<Property>,
}

fn properties() -> impl TypedValueParser<Value = Property> {
    let named = |name: String| Property::ALL.into_iter().find(|property| property.name() == name);
    PossibleValuesParser::new(Property::ALL.map(Property::name))
        .try_map(move |name| named(name).ok_or("no such property"))
}

#[derive(Args, Debug)]
pub struct Delete {
    #[command(flatten)]
    pub files: OptionalFiles,
    /// chain, site, tenant, function, element, host or link, unless files say what to delete
    #[arg(required_unless_present = "files", conflicts_with = "files", requires = "names")]
    pub kind: Option<String>,
    /// Those of these names
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub allowance: Allowance,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The examples, and why packets are dropped.
fn help_of_get() -> String {
    let width = DropReason::ALL.iter().map(|reason| reason.word().len()).max().unwrap_or(0);
    let reasons: String =
        DropReason::ALL.iter().map(|reason| format!("\n  {reason:width$}  {}", reason.meaning())).collect();
    format!(
        "Examples:\n  catena get\n  catena get chains\n  catena get chain acme-web -o yaml\n  catena get counters\n  \
         catena get drops acme-web\n\nReasons for which packets are dropped:{reasons}"
    )
}

#[derive(Args, Debug)]
pub struct Get {
    /// chains, sites, tenants, functions, elements, hosts, links, counters or drops; all resources if left out
    pub kind: Option<String>,
    /// The one of this name; with counters and drops, those of the chain of this name
    pub name: Option<String>,
    /// With counters and drops: those of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Describe {
    /// chain, site, tenant, function, element, host or link
    pub kind: String,
    /// The one of this name
    pub name: String,
}

#[derive(Args, Debug)]
pub struct Explain {
    /// The chain's name
    pub chain: ChainName,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Top {
    /// What to show
    #[arg(value_enum, default_value_t)]
    pub view: View,
    /// How long to measure each time, in seconds
    #[arg(long, default_value = "1", value_name = "SECONDS", value_parser = interval)]
    pub interval: Duration,
    /// By what the lines are sorted
    #[arg(long, value_enum, default_value_t)]
    pub sort: Order,
    /// Measure once, print, and end
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    All,
    Chains,
    Hops,
    Instances,
    Drops,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Packets,
    Bytes,
    Drops,
    Name,
}

fn interval(text: &str) -> Result<Duration, String> {
    /// Reading the counters takes some milliseconds.
    const LEAST: Duration = Duration::from_millis(100);
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|interval| *interval >= LEAST).ok_or_else(|| "write seconds, at least 0.1".to_owned())
}

#[derive(Args, Debug)]
pub struct Trace {
    /// The packet's source address
    #[arg(long, value_name = "ADDRESS")]
    pub from: IpAddr,
    /// The packet's destination address
    #[arg(long, value_name = "ADDRESS")]
    pub to: IpAddr,
    /// tcp, udp, sctp, icmp, icmpv6, gre or a number
    #[arg(long, default_value = "tcp")]
    pub protocol: Protocol,
    /// The destination port
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub port: u16,
    /// The source port: it takes part in the choice of instances
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub source_port: u16,
    /// What the packet is marked with: ef, af41, cs1, … or a number from 0 to 63
    #[arg(long, default_value_t = Dscp::default(), hide_default_value = true)]
    pub dscp: Dscp,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    pub files: OptionalFiles,
    /// Verify what is installed
    #[arg(long, conflicts_with = "files")]
    pub observed: bool,
    /// Only the chains of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<TenantName>,
    /// Send each packet that shows a violation for real, and see whether it goes as predicted
    ///
    /// In a copy of the network, which is built for that in namespaces of its own and is gone afterwards; nothing is sent in
    /// the network itself. The copy has its elements' rules and routes, others' included; its hosts' setup commands are run in
    /// the folders of their files, their services are not started. Takes root.
    #[arg(long)]
    pub replay: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Events {
    /// Go on showing events as they happen
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Debug)]
pub struct Serve {
    /// Answer on this loopback address too
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    pub listen: Option<SocketAddr>,
    /// Answer on that address also to those who ask for this host; may be repeated
    ///
    /// Addresses, localhost and the machine's own name are answered anyway. Other names are refused, because any web site
    /// can make its name lead here.
    #[arg(long, value_name = "NAME", requires = "listen")]
    pub allow_host: Vec<String>,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address and a port, such as 127.0.0.1:8642".to_owned())?;
    // Whoever can connect can reprogram the network: there is no authentication yet.
    if !address.ip().is_loopback() {
        return Err("only loopback addresses: 127.0.0.1 or [::1]".to_owned());
    }
    Ok(address)
}

#[derive(Subcommand, Debug)]
pub enum Lab {
    /// Build a network, run a command in it, take everything down again
    #[command(after_help = "Examples:\n  catena lab run -f examples/paper/network.yaml\n  \
                            catena lab run -f examples/paper/network.yaml -- ip netns exec alice ping -c 1 198.51.100.10")]
    Run {
        #[command(flatten)]
        network: Network,
        /// The command; a shell if none is given
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Build a network and leave it up
    #[command(after_help = "Example:\n  catena lab up -f examples/paper/network.yaml --name paper")]
    Up {
        #[command(flatten)]
        network: Network,
        /// What to call it; by default after the file
        #[arg(long)]
        name: Option<String>,
    },
    /// Run a command in a lab that is up, or in one of its nodes
    #[command(after_help = "Examples:\n  catena lab exec paper -- catena status\n  \
                            catena lab exec paper --node alice -- curl http://198.51.100.10/")]
    Exec {
        /// The lab's name
        lab: String,
        /// The node to run it in
        #[arg(long)]
        node: Option<NodeName>,
        /// The command; a shell if none is given
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// List the labs that are up
    List(OutputArgs),
    /// Take a lab down
    #[command(after_help = "Example:\n  catena lab down paper")]
    Down {
        /// The lab's name
        lab: String,
    },
    /// The first process of a lab; started by the others
    #[command(hide = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Args, Debug)]
pub struct Network {
    /// The network file, or a folder of files
    #[arg(short, long = "filename", value_name = "FILE|DIR")]
    pub file: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn intervals_are_not_too_short() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "0.05", "-1", "NaN", "1e99", "soon"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_loopback_addresses_are_listened_on() {
        assert!(loopback("127.0.0.1:80").is_ok());
        assert!(loopback("[::1]:80").is_ok());
        assert!(loopback("0.0.0.0:80").is_err());
        assert!(loopback("localhost").is_err());
    }
}
