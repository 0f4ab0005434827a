/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* From one function to the next: what to do with a packet at an edge port, at a function's port, at a claiming port. */
#ifndef CATENA_STEER_H
#define CATENA_STEER_H

#include "classify.h"
#include "flow.h"
#include "nsh.h"
#include "send.h"
#include "toobig.h"
#include "tunnel.h"
#include "vlan.h"

/*
 * Sets our bit of the mark where no rule claims the packet, for sure: the element's rule for the site takes what has not
 * got it. Without this program, or in doubt, a packet goes into the chain: there it is dropped, or finds its flow.
 */
static __always_inline int claim(struct __sk_buff *skb, const struct port *port, const struct packet *packet)
{
	__u32 site = 0, path = 0;
	int decision, direction = find_site(packet, port->directions, &site);

	if (direction < 0)
		return NEXT;
	decision = classify(site, packet, direction, &path);
	if (decision == UNCLAIMED || decision == UNMARKED)
		skb->mark |= port->mark;
	else
		count(skb, COUNT_CLAIMED, direction, 0, site, 0);
	return NEXT;
}

static __always_inline int drop_unknown(struct __sk_buff *skb, const struct packet *packet, __u32 path)
{
	return drop_on(skb, path, packet->unknown == UNKNOWN_FRAGMENT ? DROP_FRAGMENT : DROP_MALFORMED);
}

/* Out by the exit in this slot. `path` is 0 for what passed no function. */
static __always_inline int send_out(struct __sk_buff *skb, __u32 slot, __u32 family, __u32 site, __u32 path)
{
	struct side *side = bpf_map_lookup_elem(&exits, &slot);

	if (!side || !slot || !side->ifindex)
		return drop_on(skb, path, DROP_MISSING);
	return side->tunnel ? send_to_tunnel(skb, path, site, side) : send_l3(skb, path, family, side);
}

static __always_inline int leave_by(struct __sk_buff *skb, __u32 slot, __u32 family, __u32 site, __u32 path,
				    __u32 direction)
{
	int verdict = send_out(skb, slot, family, site, path);

	if (verdict == TC_ACT_REDIRECT)
		count_packets(all_packets_of(skb), skb->len, path ? COUNT_EXIT : COUNT_TRANSIT, direction, 0,
			      path ? path : site, 0);
	return verdict;
}

/* Out at the end of a direction, by way of the site's policy. */
__noinline int leave(struct __sk_buff *skb, __u32 family, __u32 site, __u32 path, __u32 direction)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &site);
	__u32 slot = policy ? *(volatile __u32 *)&policy->exits[direction & 1] : 0;

	/* Asked afterwards: the element may have become another site's. */
	return policy && generation_of(policy, site) ? leave_by(skb, slot, family, site, path, direction)
						     : drop_on(skb, path, DROP_MISSING);
}

/* Another instance for one hop of a flow, whose own is down or gone. What the other hops have stays. */
__noinline __u32 pick_again(const struct packet *packet, struct flow *flow, __u32 position, __u32 direction)
{
	struct entry *entry;
	struct path *path;
	__u32 id, handle;

	if (!packet || !flow || position >= MAX_HOPS)
		return NOBODY;
	id = flow->path;
	path = bpf_map_lookup_elem(&paths, &id);
	if (!path)
		return NOBODY;
	barrier_var(position);
	handle = pick(&packet->tuple, path->groups[position & (MAX_HOPS - 1)]);
	/* What was handed to the former one is its own. */
	entry = look_up_flow(packet, path->realm, direction);
	if (entry)
		settle(entry);
	if (path->id != id)
		return NOBODY;
	barrier_var(position);
	flow->instances[position & (MAX_HOPS - 1)] = handle;
	return handle;
}

static __always_inline int is_alive(const struct instance *instance)
{
	return instance && instance->state != INSTANCE_DOWN;
}

/* A copy for a tap. What becomes of it is not the original's matter. */
static __noinline int copy_to(struct __sk_buff *skb, const struct place *place, struct instance *instance)
{
	if (does_not_fit(skb, instance->inside.ifindex)) {
		count(skb, COUNT_DROPPED, 0, DROP_TOO_BIG, place->path, 0);
		return 0;
	}
	if (!bpf_clone_redirect(skb, instance->inside.ifindex, 0))
		count(skb, COUNT_HOP, place->direction, place->position, place->path, instance->id);
	return 0;
}

/* Whether a packet that goes down comes from a site. */
static __always_inline int is_between_sites(const struct packet *packet, const struct place *place)
{
	return site_of(packet->family, place->turned ? packet->tuple.destination : packet->tuple.source);
}

/* Into the function that stands at the place. */
static __always_inline int enter(struct __sk_buff *skb, const struct packet *packet, const struct place *place,
				 struct instance *instance)
{
	struct side *side = place->direction == UP ? &instance->inside : &instance->outside;
	/* What is counted is what there was before a header was put before it. */
	__u32 length = skb->len, packets = all_packets_of(skb);
	int verdict;

	switch (instance->insertion) {
	case L3:
		/* What it hands back could as well have come from that site, and be on its way up. */
		if (place->direction == DOWN && is_one_armed(instance) && is_between_sites(packet, place))
			return drop_on(skb, place->path, DROP_FORGED_SOURCE);
		verdict = send_l3(skb, place->path, packet->family, side);
		break;
	case L2:
		verdict = send_l2(skb, place, side);
		break;
	case VLAN:
		verdict = send_vlan(skb, place, side);
		break;
	default:
		verdict = send_nsh(skb, packet->family, place, side, instance->insertion);
	}
	if (verdict == TC_ACT_REDIRECT)
		count_packets(packets, length, COUNT_HOP, place->direction, place->position, place->path, instance->id);
	return verdict;
}

/*
 * From `place` on, in its direction: copies for the taps that stand there, and into the first function that hands packets
 * back, or out.
 */
__noinline int follow(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, struct place *place)
{
	if (!packet || !flow || !place)
		return drop(skb, DROP_KERNEL);
	for (int i = 0; i < MAX_HOPS; i++) {
		struct instance *instance;
		__u32 handle;

		if (place->position < 0 || place->position >= flow->count || place->position >= MAX_HOPS)
			return leave(skb, packet->family, flow->site, place->path, place->direction);
		handle = instance_at(flow, place->position);
		instance = find_instance(handle);
		if (handle != SKIPPED && !is_alive(instance)) {
			handle = pick_again(packet, flow, place->position, place->direction);
			instance = find_instance(handle);
		}
		if (handle != SKIPPED) {
			if (!instance)
				return drop_on(skb, place->path, DROP_NO_INSTANCE);
			if (instance->insertion != TAP)
				return enter(skb, packet, place, instance);
			copy_to(skb, place, instance);
		}
		place->position += place->direction == UP ? 1 : -1;
	}
	return leave(skb, packet->family, flow->site, place->path, place->direction);
}

/* Makes the answer of a packet that does not fit where it is, on its way back to the function that it came out of. */
__noinline int turn_round(struct __sk_buff *skb, struct place *place)
{
	if (!place)
		return -1;
	drop_on(skb, place->path, DROP_TOO_BIG);
	place->direction = !place->direction;
	place->turned = 1;
	place->position += place->direction == UP ? 1 : -1;
	return answer_too_big(skb, skb->cb[0]);
}

/* The same; where the packet does not fit, its sender is told, back through the functions that it came out of. */
static __always_inline int forward(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, struct place *place)
{
	int verdict = follow(skb, packet, flow, place);

	if (verdict != TOO_BIG)
		return verdict;
	if (turn_round(skb, place))
		return TC_ACT_SHOT;
	verdict = follow(skb, packet, flow, place);
	return verdict == TOO_BIG ? drop_on(skb, place->path, DROP_TOO_BIG) : verdict;
}

/* Of a closed connection whose ports are used again. */
static __always_inline int is_over(const struct flow *flow, const struct packet *packet)
{
	return is_closed(flow->state) && opens_connection(packet);
}

/*
 * Whether an entry can be followed: its path stands. What passes no function holds for replies alone, as long as the policy
 * is the same: each packet of the site's own is marked, or not, by itself.
 */
static __always_inline int holds(const struct flow *flow, const struct packet *packet, int direction)
{
	struct policy *policy;
	__u32 path, site;

	if (!flow || is_over(flow, packet))
		return 0;
	path = flow->path;
	if (path)
		return !!bpf_map_lookup_elem(&paths, &path);
	if (direction == UP && !packet->error)
		return 0;
	site = flow->site;
	policy = bpf_map_lookup_elem(&policies, &site);
	return policy && policy->generation == flow->instances[0];
}

/* Remembers for its replies, which need not be marked alike, what passes no function as it is marked otherwise. */
static __always_inline enum room remember_unmarked(const struct packet *packet, struct flow *flow, __u32 realm, int direction)
{
	struct flow *former = known_flow(packet, realm, direction);

	if (!former || former->path || former->site != flow->site || former->instances[0] != flow->instances[0] ||
	    is_over(former, packet))
		return insert_flow(packet, flow, realm, direction);
	touch(former, packet, direction);
	return ROOM;
}

/*
 * What the policy says about a packet of no known flow. `site` is 0 where its addresses have to tell. The verdict is that
 * for the packet; NEXT with `flow` filled if it is to be steered, and without if it is of no site; TOO_BIG with the site in it.
 */
static __noinline int begin(struct __sk_buff *skb, const struct packet *packet, __u32 site, int direction,
			    struct flow *flow)
{
	struct policy *policy;
	struct path *path;
	__u32 id = 0, realm = 0, slot = 0;
	int decision = TORN;

	if (!site)
		site = site_of(packet->family, direction == UP ? packet->tuple.source : packet->tuple.destination);
	for (int attempt = 0; attempt < 3 && decision == TORN; attempt++) {
		policy = bpf_map_lookup_elem(&policies, &site);
		if (!policy || !policy->exits[0])
			return NEXT;
		flow->instances[0] = generation_of(policy, site);
		realm = policy->realm;
		slot = policy->exits[direction & 1];
		decision = evaluate(policy, packet, direction, &id, site);
		if (generation_of(policy, site) != flow->instances[0])
			decision = TORN;
	}
	switch (decision) {
	case STEERED:
		break;
	case UNDECIDED:
		return drop_unknown(skb, packet, 0);
	case UNMARKED:
		flow->site = site;
		if (!packet->error && remember_unmarked(packet, flow, realm, direction) == TOO_FAST)
			return drop(skb, DROP_LIMIT);
		return leave_by(skb, slot, packet->family, site, 0, direction);
	case UNCLAIMED:
		flow->site = site;
		return leave_by(skb, slot, packet->family, site, 0, direction);
	default:
		return drop(skb, DROP_MISSING);
	}
	path = bpf_map_lookup_elem(&paths, &id);
	if (!path)
		return drop_on(skb, id, DROP_MISSING);
	choose(&packet->tuple, path, flow);
	if (flow->path != id || flow->site != site)
		return drop_on(skb, id, DROP_MISSING);
	/* An error tells of a flow; it is none. */
	if (packet->error)
		return NEXT;
	return insert_flow(packet, flow, realm, direction) == TOO_FAST ? drop_on(skb, id, DROP_LIMIT) : NEXT;
}

static __always_inline int steer(struct __sk_buff *skb, const struct packet *packet, struct flow *flow, int direction)
{
	struct place place = { .path = flow->path, .direction = direction };

	place.position = direction == UP ? 0 : (int)flow->count - 1;
	return forward(skb, packet, flow, &place);
}

/* What passes no function and does not fit the way out: its sender is told, by the other exit. */
static __always_inline int turn_back(struct __sk_buff *skb, __u32 family, __u32 site, int direction)
{
	int verdict;

	drop(skb, DROP_TOO_BIG);
	if (answer_too_big(skb, skb->cb[0]))
		return TC_ACT_SHOT;
	verdict = leave(skb, family, site, 0, !direction);
	return verdict == TOO_BIG ? drop(skb, DROP_TOO_BIG) : verdict;
}

/* A packet that comes from the site or from the Internet, in a direction that its port is for. */
__noinline int from_edge_in(struct __sk_buff *skb, __u32 site, const struct packet *packet, int direction)
{
	struct flow chosen = {}, *flow;
	int verdict;

	if (!packet)
		return drop(skb, DROP_KERNEL);
	flow = packet->unknown ? NULL : known_flow(packet, site, direction);
	if (holds(flow, packet, direction)) {
		touch(flow, packet, direction);
		return steer(skb, packet, flow, direction);
	}
	verdict = begin(skb, packet, site, direction, &chosen);
	if (verdict == TOO_BIG)
		return turn_back(skb, packet->family, chosen.site, direction);
	if (verdict != NEXT || !chosen.site)
		return verdict;
	return steer(skb, packet, &chosen, direction);
}

static __always_inline int from_edge(struct __sk_buff *skb, __u32 site, __u32 directions, const struct packet *packet)
{
	int verdict;

	if (directions == 1 << UP)
		return from_edge_in(skb, site, packet, UP);
	if (directions == 1 << DOWN)
		return from_edge_in(skb, site, packet, DOWN);
	/* Both ways by one port: up if the source is a site's, else down. */
	verdict = from_edge_in(skb, site, packet, UP);
	return verdict == NEXT ? from_edge_in(skb, site, packet, DOWN) : verdict;
}

/* The position at which a flow passes the instance; -1 if it does not. */
static __always_inline int find_position(const struct flow *flow, __u32 handle)
{
	for (int i = 0; i < MAX_HOPS; i++)
		if (flow->instances[i] == handle && i < flow->count)
			return i;
	return -1;
}

__noinline int count_returned(struct __sk_buff *skb, __u32 handle, __u32 direction)
{
	struct counter *counter = find_returned(handle, direction);

	if (counter)
		add(counter, all_packets_of(skb), skb->len);
	return 0;
}

/* On from the place where the packet came out. */
static __always_inline int go_on(struct __sk_buff *skb, const struct packet *packet, struct flow *flow,
				 const struct port *port, struct place *place)
{
	count_returned(skb, port->instance, place->direction);
	place->position += place->direction == UP ? 1 : -1;
	return forward(skb, packet, flow, place);
}

/*
 * A packet from a function that rewrites addresses, with new ones: a flow of its own from here on, which the functions
 * behind this one and the way back know it by. The port tells whose it is.
 */
__noinline int rewritten(struct __sk_buff *skb, const struct port *port, const struct packet *packet, int direction)
{
	struct place place = { .direction = direction };
	struct flow chosen = {};
	struct path *path;

	if (!port || !packet)
		return drop(skb, DROP_KERNEL);
	place.path = port->path;
	/* Only what goes up is new; what comes back has the addresses of the flow that it answers. */
	path = bpf_map_lookup_elem(&paths, &place.path);
	if (!path || direction != UP || packet->error)
		return drop_on(skb, place.path, DROP_UNEXPECTED);
	choose(&packet->tuple, path, &chosen);
	if (chosen.path != place.path)
		return drop_on(skb, place.path, DROP_MISSING);
	for (int i = 0; i < MAX_HOPS; i++) {
		struct instance *instance = find_instance(chosen.instances[i]);

		if (instance && instance->rewrites && i < chosen.count) {
			chosen.instances[i] = port->instance;
			place.position = i;
			if (insert_flow(packet, &chosen, path->realm, direction) == TOO_FAST)
				return drop_on(skb, place.path, DROP_LIMIT);
			return go_on(skb, packet, &chosen, port, &place);
		}
	}
	return drop_on(skb, place.path, DROP_UNEXPECTED);
}

/* How long a packet may be in a function. */
#define IN_FLIGHT 1000000000

/*
 * Whether a packet that comes out of a function now may have gone in when the site had another policy. If nothing but the
 * policy tells its path, it could go on in the new one behind a function that it has not passed.
 */
static __always_inline int is_changing(__u32 site)
{
	const struct policy *policy = bpf_map_lookup_elem(&policies, &site);

	return policy && policy->since && bpf_ktime_get_coarse_ns() < policy->since + IN_FLIGHT;
}

/*
 * Whether a packet that a function hands back towards its destination may have been given to it on that way. A function that
 * routes may also turn round what one site sends another, and so lead it past all functions behind itself: what comes down with
 * the source of a site must be of a flow of which packets came down.
 */
static __always_inline int may_come_down(const struct packet *packet, const struct flow *flow)
{
	return (flow && flow->state & SEEN_DOWN) || !site_of(packet->family, packet->tuple.source);
}

/* The flow of a packet that came out of a function; filled into `chosen` if it has no entry. Null: it is unexpected. */
static __always_inline struct flow *flow_from(const struct packet *packet, int direction, __u32 site,
					      __u32 path_id, struct flow *chosen)
{
	struct flow *flow = known_flow(packet, site, direction);
	struct path *path;
	__u32 id = path_id;

	if (!holds(flow, packet, direction))
		flow = NULL;
	if (direction == DOWN && !path_id && !site && !may_come_down(packet, flow))
		return NULL;
	if (flow && (!path_id || flow->path == path_id))
		return flow;
	/* It made the packet itself, or the flow has no entry: then the choice is made again. */
	if (!path_id) {
		if (!site)
			site = site_of(packet->family, direction == UP ? packet->tuple.source : packet->tuple.destination);
		if (!site || is_changing(site) || classify(site, packet, direction, &id) != STEERED)
			return NULL;
	}
	path = bpf_map_lookup_elem(&paths, &id);
	if (!path)
		return NULL;
	choose(&packet->tuple, path, chosen);
	return chosen->path == id && chosen->site ? chosen : NULL;
}

/* A packet that an l3 function hands back, or that it made itself: in the direction that its port, or its flow, says. */
__noinline int from_l3(struct __sk_buff *skb, const struct port *port, const struct packet *packet, int direction)
{
	struct place place = { .direction = direction };
	struct flow chosen = {}, *flow;
	__u32 site;

	if (!port || !packet || packet->unknown)
		return NEXT;
	site = port->roles & ROLE_SITE ? port->site : 0;
	flow = flow_from(packet, direction, site, 0, &chosen);
	if (!flow)
		return NEXT;
	place.path = flow->path;
	place.position = find_position(flow, port->instance);
	if (place.position < 0)
		return drop_on(skb, place.path, DROP_UNEXPECTED);
	/* Edges see each flow in one direction only, where its addresses change on the way. */
	if (port->path)
		touch(flow, packet, direction);
	return go_on(skb, packet, flow, port, &place);
}

/* A frame that says by itself where it has been. */
__noinline int from_tagged(struct __sk_buff *skb, const struct port *port, const struct packet *packet,
			   struct place *place)
{
	struct flow chosen = {}, *flow;
	struct path *path;
	__u32 id;

	if (!port || !packet || !place)
		return drop(skb, DROP_KERNEL);
	id = place->path;
	path = bpf_map_lookup_elem(&paths, &id);
	if (!path)
		return drop_on(skb, place->path, DROP_MISSING);
	if (packet->unknown)
		return drop_unknown(skb, packet, place->path);
	flow = flow_from(packet, place->direction, path->realm, place->path, &chosen);
	if (!flow)
		return drop_on(skb, place->path, DROP_UNEXPECTED);
	if (place->position < 0)
		place->position = find_position(flow, port->instance);
	if (place->position < 0 || place->position >= flow->count ||
	    instance_at(flow, place->position) != port->instance)
		return drop_on(skb, place->path, DROP_UNEXPECTED);
	return go_on(skb, packet, flow, port, place);
}

static __always_inline int is_ours(const struct packet *packet)
{
	return site_of(packet->family, packet->tuple.source) || site_of(packet->family, packet->tuple.destination);
}

static __always_inline int out_of_l3(struct __sk_buff *skb, const struct port *port, const struct packet *packet)
{
	int verdict = NEXT;

	if (port->roles & ROLE_OUTSIDE)
		verdict = from_l3(skb, port, packet, UP);
	/* Of two directions, what has the source of a site goes up (see enter). */
	if (verdict == NEXT && port->roles & ROLE_INSIDE &&
	    !(port->roles & ROLE_OUTSIDE && site_of(packet->family, packet->tuple.source)))
		verdict = from_l3(skb, port, packet, DOWN);
	if (verdict != NEXT)
		return verdict;
	if (packet->unknown)
		return port->path || port->roles & ROLE_SITE || is_ours(packet) ? drop_unknown(skb, packet, 0) : NEXT;
	if (port->path)
		return rewritten(skb, port, packet, port->roles & ROLE_OUTSIDE ? UP : DOWN);
	/* What a function talks with its neighbours is not ours; what has a site's address is, and nobody gave it to this one. */
	return port->roles & ROLE_SITE || is_ours(packet) ? drop(skb, DROP_UNEXPECTED) : NEXT;
}

/* The path that a frame names; 0 if there is none, since whoever made the frame could name any, and each would be counted. */
static __always_inline __u32 named_path(const struct place *place)
{
	__u32 id = place->path;

	return bpf_map_lookup_elem(&paths, &id) ? id : 0;
}

/* A frame from a function's port. */
static __noinline int from_function(struct __sk_buff *skb, const struct port *port)
{
	struct place place = { .position = -1 };
	struct packet packet = {};
	int told = UNTOLD;

	switch (port->insertion) {
	case L3:
		/* Not for us alone by its MAC address: flooded, mirrored, or for all. */
		if (skb->pkt_type != PACKET_HOST) {
			listen(skb);
			return NEXT;
		}
		break;
	case L2:
		told = told_by_tag(skb, port, &place);
		break;
	case VLAN:
		told = told_by_vlan(skb, port, &place);
		break;
	case TAP:
		told = WRONG;
		break;
	default:
		if (is_nsh(skb))
			return receive_again(skb);
		told = told_by_nsh(skb, port, &place);
	}
	if (told == UNTOLD && port->insertion != L3)
		return NEXT;
	if (told != UNTOLD)
		place.path = named_path(&place);
	/* The header that should say where it has been is still before the packet. */
	if (told == BAD_INDEX)
		return drop_on(skb, place.path, DROP_SERVICE_INDEX);
	if (told == WRONG && port->insertion >= NSH_FIXED)
		return drop_on(skb, place.path, DROP_UNEXPECTED);
	packet.scope = told == TOLD ? place.path : skb->ifindex;
	switch (parse(skb, &packet)) {
	case PARSED:
		break;
	case PARSED_MALFORMED:
		return drop_on(skb, place.path, DROP_MALFORMED);
	default:
		/* What bears our mark was IP when we sent it. */
		if (told == TOLD)
			return drop_on(skb, place.path, DROP_UNEXPECTED);
		listen(skb);
		return NEXT;
	}
	if (packet.discovery && told != TOLD) {
		listen(skb);
		return NEXT;
	}
	if (told == WRONG)
		return drop_on(skb, place.path, DROP_UNEXPECTED);
	if (told == TOLD)
		return from_tagged(skb, port, &packet, &place);
	return out_of_l3(skb, port, &packet);
}

#endif
