/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The steering engine: what happens to a packet at tc ingress of a port.
 *
 * Start reading here, then steer.h for the way through a chain, packet.h for what a packet is, tunnel.h for GRE. The
 * loader writes the maps (maps.h) and nothing else; nothing here waits for it, so forwarding outlives it.
 *
 * Two rules hold everywhere. What is not ours passes on unchanged (NEXT): other programs on the port run as before, and
 * then the stack, which on a steering element does not forward. And what is ours but cannot be handled is dropped and
 * counted with its reason; it never passes on.
 */
#include "steer.h"
#include "tunnel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int catena_steer(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct port *port;
	__u32 ifindex = skb->ifindex;

	port = bpf_map_lookup_elem(&ports, &ifindex);
	if (!port)
		return NEXT;
	/* Whatever becomes of it: nobody sends our bit in. */
	if (port->roles & ROLE_CLAIM)
		skb->mark &= ~port->mark;
	/* PACKET_HOST is 0. Frames for others (flooded, mirrored) are not ours; a tag is nobody's address. */
	if (skb->pkt_type != 0 && !(port->roles & ROLE_L2))
		return NEXT;
	if (port->roles & ROLE_UNDERLAY) {
		int verdict = decapsulate(skb);

		if (verdict != NEXT)
			return verdict;
	}
	if (!(port->roles & (ROLE_CLAIM | ROLE_STEER | ROLE_INSIDE | ROLE_OUTSIDE)))
		return NEXT;
	switch (parse(skb, &packet)) {
	case PARSED:
		break;
	case PARSED_MALFORMED:
		return drop(skb, DROP_MALFORMED);
	default:
		return NEXT;
	}
	/* On a port that only claims, the element routes: what is for itself it takes before any rule of ours is asked. */
	if (packet.discovery && !(port->roles & ROLE_CLAIM))
		return NEXT;
	if (port->roles & (ROLE_INSIDE | ROLE_OUTSIDE))
		return from_function(skb, port, &packet);
	if (port->roles & ROLE_STEER)
		return from_edge(skb, port, &packet);
	return claim(skb, port, &packet);
}

SEC("tc")
int catena_encap(struct __sk_buff *skb)
{
	return encapsulate(skb);
}
