# The intrusion prevention systems ips-1 and ips-2: a bridge between `in` and `out` that drops TCP packets with a
# signature in the payload. The signature is the name of the EICAR test file, which every scanner is tested with.
set -e

signature='EICAR-STANDARD-ANTIVIRUS-TEST-FILE'

# iptables sees bridged packets by way of this module, where it is one.
[ -e /proc/sys/net/bridge ] || modprobe br_netfilter

# The bridge is a wire: it says nothing itself, and what it filters is decided here.
ip -batch - <<'BATCH'
link add br0 type bridge stp_state 0 mcast_snooping 0 nf_call_iptables 1 nf_call_ip6tables 1
link set br0 addrgenmode none
link set in master br0
link set out master br0
link set br0 up
BATCH

for iptables in iptables ip6tables; do
  $iptables -N IPS
  $iptables -A FORWARD -j IPS
  $iptables -A IPS -p tcp -m string --algo bm --string "$signature" -j DROP
  $iptables -A IPS -m physdev --physdev-in in -m comment --comment up
  $iptables -A IPS -m physdev --physdev-in out -m comment --comment down
done
