/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What happens to most packets, in one piece: plain TCP or UDP, of a flow that is known, into a routed function or out.
 * It does what steer.h does, and no more than that: it looks into one hash for the flow and one for the counter. Whatever is
 * not so comes out as NEXT, before anything was changed, and goes the long way.
 *
 * Whether the flow's path is still installed is not asked: the loader forgets the flows of a path with it, and an entry that
 * was made in that very moment is found by the next sweep. Until then it leads through all of the path's functions.
 */
#ifndef CATENA_FAST_H
#define CATENA_FAST_H

#include "steer.h"

/* The direction of all that comes in at a port; -1 if packets have to tell. */
static __always_inline int direction_at(const struct port *port)
{
	switch (port->roles & ~(ROLE_SITE | ROLE_UNDERLAY)) {
	case ROLE_STEER:
		return port->directions == 1 << UP ? UP : port->directions == 1 << DOWN ? DOWN : -1;
	case ROLE_INSIDE:
		return port->insertion == L3 ? DOWN : -1;
	case ROLE_OUTSIDE:
		return port->insertion == L3 ? UP : -1;
	default:
		return -1;
	}
}

/* The addresses and ports of a plain packet, the site's end first; its flow, if it has one. `flags` are TCP's. */
static __always_inline struct flow *plain_flow(struct __sk_buff *skb, __u32 realm, int direction, __u8 *flags)
{
	const void *data = (const void *)(long)skb->data, *data_end = (const void *)(long)skb->data_end;
	const struct ethhdr *ethernet = data;
	const __be16 *ends;
	__u32 length;

	if ((const void *)(ethernet + 1) > data_end)
		return NULL;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = (const void *)(ethernet + 1);
		struct flow_key4 key;

		ends = (const void *)(ip + 1);
		if ((const void *)ends + 20 > data_end || *(const __u8 *)ip != 0x45 ||
		    ip->frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
			return NULL;
		length = bpf_ntohs(ip->tot_len);
		if (length < sizeof(*ip) + 20 || ETH_HLEN + length > skb->len)
			return NULL;
		if (ip->protocol == IPPROTO_TCP)
			*flags = ((const __u8 *)ends)[13];
		else if (ip->protocol != IPPROTO_UDP)
			return NULL;
		key.realm = realm;
		key.local = direction == UP ? ip->saddr : ip->daddr;
		key.remote = direction == UP ? ip->daddr : ip->saddr;
		key.local_port = bpf_ntohs(direction == UP ? ends[0] : ends[1]);
		key.remote_port = bpf_ntohs(direction == UP ? ends[1] : ends[0]);
		key.protocol = ip->protocol;
		__builtin_memset(key.pad, 0, sizeof(key.pad));
		return bpf_map_lookup_elem(&flows4, &key);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = (const void *)(ethernet + 1);
		struct flow_key6 key;

		ends = (const void *)(ip + 1);
		if ((const void *)ends + 20 > data_end || ip->version != 6)
			return NULL;
		length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		if (length < sizeof(*ip) + 20 || ETH_HLEN + length > skb->len)
			return NULL;
		if (ip->nexthdr == IPPROTO_TCP)
			*flags = ((const __u8 *)ends)[13];
		else if (ip->nexthdr != IPPROTO_UDP)
			return NULL;
		key.realm = realm;
		__builtin_memcpy(key.local, direction == UP ? &ip->saddr : &ip->daddr, sizeof(key.local));
		__builtin_memcpy(key.remote, direction == UP ? &ip->daddr : &ip->saddr, sizeof(key.remote));
		key.local_port = bpf_ntohs(direction == UP ? ends[0] : ends[1]);
		key.remote_port = bpf_ntohs(direction == UP ? ends[1] : ends[0]);
		key.protocol = ip->nexthdr;
		__builtin_memset(key.pad, 0, sizeof(key.pad));
		return bpf_map_lookup_elem(&flows6, &key);
	}
	return NULL;
}

/* Nothing to note of the flow but that it is still there: then it is noted. Whatever else has happened is for touch(). */
static __always_inline int is_steady(struct flow *flow, __u8 flags, int direction)
{
	__u32 state = flow->state;
	__u64 now;

	if (flags & (TCP_SYN | TCP_FIN | TCP_RST) || !(state & (SEEN_UP << direction)) ||
	    (state & (HALF_OPEN | SEEN_UP | SEEN_DOWN)) == (HALF_OPEN | SEEN_UP | SEEN_DOWN))
		return 0;
	now = bpf_ktime_get_coarse_ns();
	if (now - flow->seen > SEEN_EVERY)
		flow->seen = now;
	return 1;
}

static __noinline int fast(struct __sk_buff *skb, const struct port *port)
{
	int direction = direction_at(port), position, verdict;
	__u32 from = port->instance;
	struct instance *instance;
	struct flow *flow;
	struct side *side;
	__u8 flags = 0;
	__u64 mac, now;

	if (direction < 0 || skb->pkt_type != 0 || skb->vlan_present)
		return NEXT;
	flow = plain_flow(skb, port->roles & ROLE_SITE ? port->site : 0, direction, &flags);
	if (!flow)
		return NEXT;
	if (port->roles & ROLE_STEER) {
		if (!flow->path || !is_steady(flow, flags, direction))
			return NEXT;
		position = direction == UP ? 0 : (int)flow->count - 1;
	} else {
		if ((flags & TCP_SYN && is_closed(flow->state)) || (port->path && !is_steady(flow, flags, direction)))
			return NEXT;
		position = find_position(flow, from);
		if (position < 0)
			return NEXT;
		position += direction == UP ? 1 : -1;
	}
	if (position < 0 || position >= MAX_HOPS || position >= flow->count) {
		if (port->roles & ROLE_STEER)
			return NEXT;
		count_returned(skb, from, direction);
		return leave(skb, skb->protocol == bpf_htons(ETH_P_IP) ? 4 : 6, flow->site, flow->path, direction);
	}
	instance = find_instance(instance_at(flow, position));
	if (!instance || instance->state == INSTANCE_DOWN || instance->insertion != L3)
		return NEXT;
	side = direction == UP ? &instance->inside : &instance->outside;
	mac = skb->protocol == bpf_htons(ETH_P_IP) ? side->v4_mac : side->v6_mac;
	now = bpf_ktime_get_coarse_ns();
	if (!side->direct || !(mac & HEARD) || now - side->looked > LOOK_EVERY || does_not_fit(skb, side->ifindex) ||
	    write_macs(skb, mac, side->own_mac))
		return NEXT;
	if (!(port->roles & ROLE_STEER))
		count_returned(skb, from, direction);
	verdict = bpf_redirect_peer(side->ifindex, 0);
	if (verdict == TC_ACT_REDIRECT)
		count(skb, COUNT_HOP, direction, position, flow->path, instance->id);
	return verdict;
}

#endif
