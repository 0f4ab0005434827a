/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The steering engine: what happens to a packet at tc ingress of a port.
 *
 * Start reading here, then fast.h for what happens to most packets, steer.h for all of the way through a chain, packet.h for
 * what a packet is, send.h, vlan.h and nsh.h for how functions are given packets, tunnel.h for GRE. The loader writes the maps
 * (maps.h) and nothing else; nothing here waits for it, so forwarding outlives it.
 *
 * Two rules hold everywhere. What is not ours passes on unchanged (NEXT): other programs on the port run as before, and
 * then the stack, which on a steering element does not forward. And what is ours but cannot be handled is dropped and
 * counted with its reason; it never passes on.
 */
#include "fast.h"
#include "steer.h"
#include "sweep.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline struct port *find_port(__u32 ifindex)
{
	struct port *port;

	if (ifindex >= NEAR_PORTS)
		return bpf_map_lookup_elem(&far_ports, &ifindex);
	port = bpf_map_lookup_elem(&ports, &ifindex);
	return port && port->roles ? port : NULL;
}

/* The site that a port, or the tunnel that a packet came through, tells; 0 where its addresses have to. */
static __always_inline __u32 known_site(struct __sk_buff *skb, const struct port *port)
{
	struct policy *policy;
	__u32 site;

	if (port->roles & ROLE_SITE)
		return port->site;
	if (!(port->roles & ROLE_TUNNELS))
		return 0;
	site = named_site(skb, ETH_ALEN);
	policy = bpf_map_lookup_elem(&policies, &site);
	return policy ? policy->realm : 0;
}

/* A packet that came in by no function's port. */
static __noinline int from_outside(struct __sk_buff *skb, const struct port *port)
{
	struct packet packet = { .scope = skb->ifindex };

	if (port->roles & ROLE_CLAIM)
		skb->mark &= ~port->mark;
	/* Frames for others (flooded, mirrored) are not ours, nor are those for all. */
	if (skb->pkt_type != PACKET_HOST) {
		listen(skb);
		return NEXT;
	}
	if (port->roles & ROLE_UNDERLAY) {
		int verdict = decapsulate(skb);

		if (verdict != NEXT)
			return verdict;
	}
	if (!(port->roles & (ROLE_CLAIM | ROLE_STEER)))
		return NEXT;
	switch (parse(skb, &packet)) {
	case PARSED:
		break;
	case PARSED_MALFORMED:
		return drop(skb, DROP_MALFORMED);
	default:
		listen(skb);
		return NEXT;
	}
	/* On a port that only claims, the element routes: what is for itself it takes before any rule of ours is asked. */
	if (packet.discovery && !(port->roles & ROLE_CLAIM)) {
		listen(skb);
		return NEXT;
	}
	if (port->roles & ROLE_STEER)
		return from_edge(skb, known_site(skb, port), port->directions, &packet);
	return claim(skb, port, &packet);
}

SEC("tc")
int catena_steer(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct port *port = find_port(ifindex);
	int verdict;

	if (!port)
		return NEXT;
	verdict = fast(skb, port);
	if (verdict != NEXT)
		return verdict;
	if (port->roles & (ROLE_INSIDE | ROLE_OUTSIDE))
		return from_function(skb, port);
	return from_outside(skb, port);
}

/* At the hidden end of the veth pair of tunnels. */
SEC("tc")
int catena_encap(struct __sk_buff *skb)
{
	return encapsulate(skb);
}
