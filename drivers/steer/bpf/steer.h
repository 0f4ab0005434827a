/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* From one function to the next: what to do with a packet at an edge port, at a function's port, at a claiming port. */
#ifndef CATENA_STEER_H
#define CATENA_STEER_H

#include "classify.h"
#include "flow.h"
#include "send.h"

/*
 * Sets our bit of the mark where no rule claims the packet, for sure: the element's rule for the site takes what has not
 * got it. Without this program, or in doubt, a packet goes into the chain: there it is dropped, or finds its flow.
 */
static __always_inline int claim(struct __sk_buff *skb, const struct port *port, const struct packet *packet)
{
	struct policy *policy;
	__u32 site = 0, path = 0;
	int direction = find_site(packet, port->directions, &site);

	if (direction < 0)
		return NEXT;
	policy = bpf_map_lookup_elem(&policies, &site);
	if (policy && classify(policy, packet, direction, &path) == UNCLAIMED)
		skb->mark |= port->mark;
	else
		count(skb, COUNT_CLAIMED, direction, 0, site, 0);
	return NEXT;
}

static __always_inline int drop_unknown(struct __sk_buff *skb, const struct packet *packet)
{
	return drop(skb, packet->unknown == UNKNOWN_FRAGMENT ? DROP_FRAGMENT : DROP_MALFORMED);
}

/* To the next function, or out. */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *packet, const struct policy *policy,
				   const struct path *path, struct place *place, const struct flow *flow)
{
	if (place->position < 0 || place->position >= path->count || place->position >= MAX_HOPS)
		return leave(skb, packet->family, policy, place, COUNT_EXIT);
	return enter(skb, packet->family, place, instance_at(flow, place->position));
}

/* A packet that comes from the site or from the Internet. */
static __always_inline int from_edge(struct __sk_buff *skb, const struct port *port, const struct packet *packet)
{
	struct place place = {};
	struct flow_key key = {};
	struct flow chosen = {}, *flow;
	struct policy *policy;
	struct path *path;
	int direction = find_site(packet, port->directions, &place.site);

	if (direction < 0)
		return NEXT;
	place.direction = direction;
	policy = bpf_map_lookup_elem(&policies, &place.site);
	if (!policy || !policy->has_exits)
		return NEXT;

	flow_key(place.site, &packet->tuple, &key);
	flow = packet->unknown ? NULL : find_flow(&key, packet);
	if (flow) {
		touch(flow, packet, direction);
		place.path = flow->path;
	} else {
		switch (classify(policy, packet, direction, &place.path)) {
		case STEERED:
			break;
		case UNDECIDED:
			return drop_unknown(skb, packet);
		case TORN:
			return drop(skb, DROP_MISSING);
		default:
			return leave(skb, packet->family, policy, &place, COUNT_TRANSIT);
		}
	}
	path = bpf_map_lookup_elem(&paths, &place.path);
	if (!path || path->site != place.site)
		return drop(skb, DROP_MISSING);
	if (!flow) {
		choose(&key, place.path, path, &chosen);
		insert_flow(&key, &chosen, packet, direction);
		flow = &chosen;
	}
	place.position = direction == UP ? 0 : (int)path->count - 1;
	return forward(skb, packet, policy, path, &place, flow);
}

/* Whether the port is the side of instance `id` where packets of `direction` come out. */
static __always_inline int comes_from(__u32 id, __u32 ifindex, int direction)
{
	struct instance *instance = bpf_map_lookup_elem(&instances, &id);

	if (!instance)
		return 0;
	return ifindex == (direction == UP ? instance->outside.ifindex : instance->inside.ifindex);
}

/* The position of the flow's function at this port; -1 if it has none here. */
__noinline int find_position(const struct flow *flow, __u32 hops, __u32 ifindex, int direction)
{
	if (!flow)
		return -1;
	for (int i = 0; i < MAX_HOPS; i++) {
		if (i >= hops)
			break;
		if (comes_from(flow->instances[i], ifindex, direction))
			return i;
	}
	return -1;
}

/* A packet that a function hands back, or that it made itself. */
static __always_inline int from_function(struct __sk_buff *skb, const struct port *port, const struct packet *packet)
{
	struct place place = {};
	struct flow_key key = {};
	struct flow chosen = {}, *flow;
	struct policy *policy;
	struct path *path;
	__u8 source[ETH_ALEN];
	int direction = port->roles & ROLE_INSIDE ? DOWN : UP, tagged = 0;

	if (port->roles & ROLE_L2) {
		if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)))
			return drop(skb, DROP_MALFORMED);
		tagged = read_tag(source, &place);
	}
	if (tagged) {
		if (place.direction != direction)
			return drop(skb, DROP_UNEXPECTED);
		path = bpf_map_lookup_elem(&paths, &place.path);
		if (!path)
			return drop(skb, DROP_MISSING);
		place.site = path->site;
	} else {
		/* Not for us by its MAC address, or not of a site: what a function talks with its neighbours. */
		if (skb->pkt_type != 0 || find_site(packet, 1 << direction, &place.site) < 0)
			return NEXT;
		place.direction = direction;
	}
	policy = bpf_map_lookup_elem(&policies, &place.site);
	if (!policy)
		return drop(skb, DROP_MISSING);
	if (packet->unknown)
		return drop_unknown(skb, packet);

	flow_key(place.site, &packet->tuple, &key);
	flow = find_flow(&key, packet);
	if (flow && tagged && flow->path != place.path)
		flow = NULL;
	if (flow) {
		touch(flow, packet, direction);
		place.path = flow->path;
	} else if (!tagged && classify(policy, packet, direction, &place.path) != STEERED) {
		return drop(skb, DROP_UNEXPECTED);
	}
	path = bpf_map_lookup_elem(&paths, &place.path);
	if (!path || path->site != place.site)
		return drop(skb, DROP_MISSING);
	if (!flow) {
		choose(&key, place.path, path, &chosen);
		flow = &chosen;
	}

	if (!tagged)
		place.position = find_position(flow, path->count, skb->ifindex, direction);
	else if (!comes_from(instance_at(flow, place.position), skb->ifindex, direction))
		place.position = -1;
	if (place.position < 0 || place.position >= path->count)
		return drop(skb, DROP_UNEXPECTED);
	if (flow == &chosen)
		insert_flow(&key, &chosen, packet, direction);

	place.position += direction == UP ? 1 : -1;
	return forward(skb, packet, policy, path, &place, flow);
}

#endif
