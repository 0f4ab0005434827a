/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What happens to most packets, in one piece: plain TCP or UDP, of a flow that is known, into a routed function or out.
 * It does what steer.h does, and no more than that: it looks into one hash, for the flow, and counts in what it finds there
 * (tally.h). Whatever is not so comes out as NEXT, before anything was changed, and goes the long way.
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
static __always_inline struct entry *plain_flow(struct __sk_buff *skb, __u32 realm, int direction, __u8 *flags)
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
static __always_inline int is_steady(struct flow *flow, __u8 flags, int direction, __u64 now)
{
	__u32 state = flow->state;

	if (flags & (TCP_SYN | TCP_FIN | TCP_RST) || !(state & (SEEN_UP << direction)) ||
	    (state & (HALF_OPEN | SEEN_UP | SEEN_DOWN)) == (HALF_OPEN | SEEN_UP | SEEN_DOWN))
		return 0;
	if (now - flow->seen > SEEN_EVERY)
		flow->seen = now;
	return 1;
}

/*
 * The slot of a flow's exit. The policy is asked for it once after each change that a loader made, and not for each packet:
 * with many tenants that would be the one lookup whose cost depends on their number.
 */
static __always_inline __u32 exit_of(struct flow *flow, __u32 direction)
{
	__u32 site = flow->site, zero = 0, changes;
	const struct element *element = bpf_map_lookup_elem(&elements, &zero);
	__u64 known = *(volatile __u64 *)&flow->exits;
	const struct policy *policy;

	if (!element)
		return 0;
	changes = element->changes;
	if (!known || known >> 32 != changes) {
		policy = bpf_map_lookup_elem(&policies, &site);
		if (!policy)
			return 0;
		known = (__u64)changes << 32 | (*(volatile __u32 *)&policy->exits[DOWN] & 0xffff) << 16 |
			(*(volatile __u32 *)&policy->exits[UP] & 0xffff);
		if (!generation_of(policy, site))
			return 0;
		/* In one piece: both directions may do this at once. */
		*(volatile __u64 *)&flow->exits = known;
	}
	return direction == UP ? known & 0xffff : known >> 16 & 0xffff;
}

/* Out at the end of a direction, after all functions, the last of which is that of instance `from`. */
static __noinline int go_out(struct __sk_buff *skb, struct entry *entry, __u32 from, __u32 direction)
{
	struct flow *flow = &entry->flow;
	__u32 family = skb->protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
	int verdict = send_out(skb, exit_of(flow, direction), family, flow->site, flow->path);

	if (verdict == TOO_BIG)
		return NEXT;
	if (verdict == TC_ACT_REDIRECT)
		tally(skb, entry, flow->count, direction);
	else
		count_returned(skb, from, direction);
	return verdict;
}

static __noinline int fast(struct __sk_buff *skb, const struct port *port)
{
	int direction = direction_at(port), from_edge = !!(port->roles & ROLE_STEER), position, verdict;
	struct instance *instance;
	__u32 passed = 0;
	struct entry *entry;
	struct flow *flow;
	struct side *side;
	__u8 flags = 0;
	__u64 mac, now;

	if (direction < 0 || skb->pkt_type != 0 || skb->vlan_present)
		return NEXT;
	entry = plain_flow(skb, port->roles & ROLE_SITE ? port->site : 0, direction, &flags);
	if (!entry)
		return NEXT;
	flow = &entry->flow;
	now = bpf_ktime_get_coarse_ns();
	if (from_edge) {
		if (!flow->path || !flow->count || !is_steady(flow, flags, direction, now))
			return NEXT;
	} else {
		if ((flags & TCP_SYN && is_closed(flow->state)) ||
		    (port->path && !is_steady(flow, flags, direction, now)) ||
		    (direction == DOWN && !(flow->state & SEEN_DOWN)))
			return NEXT;
		position = find_position(flow, port->instance);
		if (position < 0)
			return NEXT;
		passed = direction == UP ? position + 1 : (int)flow->count - position;
		if (passed >= flow->count)
			return go_out(skb, entry, port->instance, direction);
	}
	instance = find_instance(handle_of(flow, position_of(flow, passed, direction)));
	if (!instance || instance->state == INSTANCE_DOWN || instance->insertion != L3)
		return NEXT;
	if (direction == DOWN && is_one_armed(instance))
		return NEXT;
	side = direction == UP ? &instance->inside : &instance->outside;
	mac = skb->protocol == bpf_htons(ETH_P_IP) ? side->v4_mac : side->v6_mac;
	if (!side->direct || !(mac & HEARD) || now - side->looked > LOOK_EVERY || does_not_fit(skb, side->ifindex) ||
	    write_macs(skb, mac, side->own_mac))
		return NEXT;
	verdict = bpf_redirect_peer(side->ifindex, 0);
	if (verdict == TC_ACT_REDIRECT)
		tally(skb, entry, passed, direction);
	return verdict;
}

#endif
