//! The world of `examples/paper`: it stands, and each of its functions does what it is there for.

use std::fs;
use std::path::{Path, PathBuf};

use catena_model::resource::{Source, load};
use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use crate::{ensure, succeeds};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("every_example_loads", every_example_loads),
        Trial::test("without_a_chain_no_function_sees_a_packet", without_a_chain_no_function_sees_a_packet),
        Trial::test("hosts_send_finished_packets", hosts_send_finished_packets),
        Trial::test("the_firewall_forbids_two_addresses", the_firewall_forbids_two_addresses),
        Trial::test("intrusion_prevention_drops_its_signature", intrusion_prevention_drops_its_signature),
        Trial::test("the_web_filter_resets_what_it_refuses", the_web_filter_resets_what_it_refuses),
    ]
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn network() -> PathBuf {
    examples().join("paper/network.yaml")
}

/// A folder is one whole; a network stands by itself, too, since the lab reads it alone.
fn every_example_loads() -> Result<(), Failed> {
    let mut loaded = 0;
    for folder in fs::read_dir(examples())? {
        let mut files: Vec<PathBuf> = fs::read_dir(folder?.path())?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
        let network = files.iter().filter(|file| file.ends_with("network.yaml")).cloned().collect::<Vec<_>>();
        for files in [files, network] {
            let sources = files.iter().map(|file| {
                fs::read_to_string(file).map(|text| Source::new(file.display().to_string(), text))
            });
            let model = load(&sources.collect::<Result<Vec<_>, _>>()?);
            loaded += files.len();
            model.map_err(|found| found.iter().map(|one| format!("{one}\n\n")).collect::<String>())?;
        }
    }
    ensure(loaded > 0, "there are no examples")
}

/// `get USER URL [CURL OPTION…]`: prints what comes, or curl's exit code.
const GET: &str = r#"
    get() { user="$1"; url="$2"; shift 2; on "$user" curl -sS -m 1 "$@" "$url" 2>/dev/null || echo "curl: $?"; }"#;

fn without_a_chain_no_function_sees_a_packet() -> Result<(), Failed> {
    let script = format!(
        "{GET}
        for user in alice bob; do
            for address in 198.51.100.10 198.51.100.66; do
                on $user ping -q -c 1 -W 5 $address >/dev/null
                get $user http://$address/
                get $user http://$address:443/
            done
            for address in 2001:db8:ffff::10 2001:db8:ffff::66; do
                on $user ping -q -c 1 -W 5 $address >/dev/null
                get $user http://[$address]/
                get $user http://[$address]:443/
            done
            get $user http://198.51.100.10/eicar.txt
            get $user http://198.51.100.10/bytes/1000000 | wc -c
        done
        on fw-1 nft list counters | grep packets
        for iptables in iptables ip6tables; do
            on ips-1 $iptables -nvxL IPS | awk 'NR > 2 {{print $1}}'
            on ips-2 $iptables -nvxL IPS | awk 'NR > 2 {{print $1}}'
            on web-1 $iptables -nvxL WEB | awk 'NR > 2 {{print $1}}'
        done"
    );
    let page = |address: &str| format!("This is the Internet. You are {address}.\n");
    let of = |v4: &str, v6: &str| {
        let eicar = "Scanners are tested with the EICAR-STANDARD-ANTIVIRUS-TEST-FILE.\n1000000\n";
        [page(v4).repeat(4), page(v6).repeat(4), eicar.to_owned()].concat()
    };
    let counters = ["\t\tpackets 0 bytes 0\n".repeat(3), "0\n".repeat(2 * 3 * 3)].concat();
    let expected =
        [of("172.16.1.10", "2001:db8:a1::10"), of("172.16.2.10", "2001:db8:b1::10"), counters].concat();
    let output = succeeds(&network(), &script)?;
    ensure(output == expected, format!("expected:\n{expected}\nfound:\n{output}"))
}

fn hosts_send_finished_packets() -> Result<(), Failed> {
    let script = format!(
        "{GET}
        on core tcpdump -i inet -nvv -c 20 tcp >capture 2>log &
        for _ in $(seq 200); do grep -q listening log && break; sleep 0.01; done
        get alice http://198.51.100.10/bytes/100000 | wc -c
        wait
        cat capture"
    );
    let folder = tempfile::tempdir()?;
    let output = succeeds(&network(), &format!("cd {}\n{script}", folder.path().display()))?;
    ensure(output.starts_with("100000\n"), &output)?;
    ensure(output.matches("(correct)").count() == 20 && !output.contains("incorrect"), &output)?;
    ensure(!output.contains("bad length") && output.contains("length 1448"), &output)
}

/// client ── function ── server: what one function does, without anything that steers.
fn cabled(
    function: &str,
    client: &str,
    server: &str,
    inside: &str,
    outside: &str,
) -> Result<(TempDir, PathBuf), Failed> {
    let website = examples().join("paper/website.py");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("cabled.yaml");
    std::os::unix::fs::symlink(examples().join("paper/functions"), folder.path().join("functions"))?;
    let text = format!(
        r#"
apiVersion: catena/v1alpha1
kind: Host
metadata: {{name: function}}
spec: {function}
---
apiVersion: catena/v1alpha1
kind: Host
metadata: {{name: client}}
spec: {{routes: [{{to: default, via: 172.16.1.1}}, {{to: default, via: "2001:db8:a1::1"}}]}}
---
apiVersion: catena/v1alpha1
kind: Host
metadata: {{name: server}}
spec:
  routes: [{{to: default, via: 198.51.100.1}}, {{to: default, via: "2001:db8:ffff::1"}}]
  services: ["exec python3 {website} 80"]
---
apiVersion: catena/v1alpha1
kind: Link
metadata: {{name: in}}
spec:
  ends:
    - {{node: client, port: eth0, addresses: {client}}}
    - {{node: function, port: in, addresses: {inside}}}
---
apiVersion: catena/v1alpha1
kind: Link
metadata: {{name: out}}
spec:
  ends:
    - {{node: function, port: out, addresses: {outside}}}
    - {{node: server, port: eth0, addresses: {server}}}
"#,
        website = website.display()
    );
    fs::write(&file, text)?;
    Ok((folder, file))
}

/// A function that routes between the client's network and the server's.
fn routed(setup: &str) -> Result<(TempDir, PathBuf), Failed> {
    cabled(
        &format!(r#"{{forwarding: true, setup: ["{setup}"]}}"#),
        r#"[172.16.1.10/24, "2001:db8:a1::10/64"]"#,
        r#"[198.51.100.10/24, 198.51.100.66/24, "2001:db8:ffff::10/64", "2001:db8:ffff::66/64"]"#,
        r#"[172.16.1.1/24, "2001:db8:a1::1/64"]"#,
        r#"[198.51.100.1/24, "2001:db8:ffff::1/64"]"#,
    )
}

fn the_firewall_forbids_two_addresses() -> Result<(), Failed> {
    let (_folder, file) = routed("nft -f functions/fw.nft")?;
    let script = format!(
        "{GET}
        get client http://198.51.100.10/
        get client http://[2001:db8:ffff::10]/
        get client http://198.51.100.66/
        get client http://[2001:db8:ffff::66]/
        for counter in up down forbidden; do
            on function nft list counter inet fw $counter | grep -q 'packets [1-9]' && echo $counter
        done"
    );
    let expected = "This is the Internet. You are 172.16.1.10.
This is the Internet. You are 2001:db8:a1::10.
curl: 28
curl: 28
up
down
forbidden
";
    let output = succeeds(&file, &script)?;
    ensure(output == expected, output)
}

fn intrusion_prevention_drops_its_signature() -> Result<(), Failed> {
    let (_folder, file) = cabled(
        r#"{setup: ["sh functions/ips.sh"]}"#,
        r#"[172.16.1.10/24, "2001:db8:a1::10/64"]"#,
        r#"[172.16.1.20/24, 198.51.100.10/24, "2001:db8:a1::20/64", "2001:db8:ffff::10/64"]"#,
        "[]",
        "[]",
    )?;
    let script = format!(
        "{GET}
        get client http://172.16.1.20/
        get client http://[2001:db8:a1::20]/
        get client http://172.16.1.20/eicar.txt
        get client http://[2001:db8:a1::20]/ -d EICAR-STANDARD-ANTIVIRUS-TEST-FILE
        for iptables in iptables ip6tables; do
            on function $iptables -nvxL IPS | awk '/DROP|up|down/ && $1 > 0' | wc -l
        done"
    );
    let expected = "This is the Internet. You are 172.16.1.10.
This is the Internet. You are 2001:db8:a1::10.
curl: 28
curl: 28
3
3
";
    let output = succeeds(&file, &script)?;
    ensure(output == expected, output)
}

fn the_web_filter_resets_what_it_refuses() -> Result<(), Failed> {
    let (_folder, file) = routed("sh functions/web.sh")?;
    let script = format!(
        "{GET}
        get client http://198.51.100.10/
        get client http://[2001:db8:ffff::10]/
        get client http://198.51.100.10/ -H 'Host: blocked.example'
        get client http://[2001:db8:ffff::10]/ -H 'Host: blocked.example'"
    );
    // 56: the connection was reset.
    let expected = "This is the Internet. You are 172.16.1.10.
This is the Internet. You are 2001:db8:a1::10.
curl: 56
curl: 56
";
    let output = succeeds(&file, &script)?;
    ensure(output == expected, output)
}
