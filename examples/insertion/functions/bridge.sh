# A bump in the wire: what enters one port leaves the other, VLAN tags and all. It says nothing itself.
set -e

ip -batch - <<'BATCH'
link add br0 type bridge stp_state 0 mcast_snooping 0
link set br0 addrgenmode none
link set in master br0
link set out master br0
link set br0 up
BATCH
