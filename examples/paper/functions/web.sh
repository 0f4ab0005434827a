# The web filter web-1: a request for a forbidden site is answered with a TCP reset. So this is a function that sends
# packets of its own.
set -e

# The header of the request for it (RFC 9110, section 7.2).
forbidden='Host: blocked.example'

for iptables in iptables ip6tables; do
  $iptables -N WEB
  $iptables -A FORWARD -j WEB
  $iptables -A WEB -i in -p tcp -m string --algo bm --string "$forbidden" -j REJECT --reject-with tcp-reset
  $iptables -A WEB -i in -m comment --comment up
  $iptables -A WEB -i out -m comment --comment down
done
