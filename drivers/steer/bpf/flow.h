/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Flows: which path, and which instance at each of its hops. One entry serves both directions.
 *
 * The choice is weighted rendezvous hashing, the same as catena_model::packet::{flow_hash, pick} (a test compares the
 * two), so a flow whose entry is lost finds its instances again as long as its path is the same. That is also why a site
 * that opens too many flows harms nobody: what has no entry goes the way that its entry would have said.
 */
#ifndef CATENA_FLOW_H
#define CATENA_FLOW_H

#include "classify.h"
#include "instance.h"
#include "tally.h"

#define HASH_KEY 0x0ca7e7a1

/* The finaliser of MurmurHash3 (public domain, Austin Appleby). */
static __always_inline __u32 mix(__u32 word)
{
	word ^= word >> 16;
	word *= 0x85ebca6b;
	word ^= word >> 13;
	word *= 0xc2b2ae35;
	return word ^ (word >> 16);
}

/* -1 if the source end comes first, else 1: by address, then by port. */
static __always_inline int order_of(const struct tuple *tuple, __u16 source_port, __u16 destination_port)
{
	int order = 0;

	for (int i = 3; i >= 0; i--) {
		__u32 source = bpf_ntohl(tuple->source[i]);
		__u32 destination = bpf_ntohl(tuple->destination[i]);

		if (source != destination)
			order = source < destination ? -1 : 1;
	}
	return order ? order : source_port <= destination_port ? -1 : 1;
}

static __always_inline __u32 mix_end(__u32 hash, const __be32 address[4], __u16 port)
{
	for (int i = 0; i < 4; i++)
		hash = mix(hash ^ bpf_ntohl(address[i]));
	return mix(hash ^ port);
}

/* The same for both directions: the lower end first. */
__noinline __u32 flow_hash(const struct tuple *tuple, __u32 stickiness)
{
	__u16 source_port, destination_port;
	__u32 hash = HASH_KEY;

	if (!tuple)
		return 0;
	source_port = stickiness == FIVE_TUPLE ? tuple->source_port : 0;
	destination_port = stickiness == FIVE_TUPLE ? tuple->destination_port : 0;
	if (order_of(tuple, source_port, destination_port) < 0) {
		hash = mix_end(hash, tuple->source, source_port);
		hash = mix_end(hash, tuple->destination, destination_port);
	} else {
		hash = mix_end(hash, tuple->destination, destination_port);
		hash = mix_end(hash, tuple->source, source_port);
	}
	return mix(hash ^ (stickiness == TWO_TUPLE ? 0 : tuple->protocol));
}

/* catena_model::packet::cost: -log2(drawn / 2^32) in units of 2^-24. */
static __always_inline __u64 cost(__u32 drawn)
{
	__u32 zeros = 0, bits = drawn ? drawn : 1;
	__u64 fraction, curve;

#pragma unroll
	for (int shift = 16; shift; shift >>= 1) {
		if (!(bits >> (32 - shift))) {
			zeros += shift;
			bits <<= shift;
		}
	}
	fraction = (__u32)(bits << 1) >> 8;
	curve = (fraction * ((1 << 24) - fraction)) >> 24;
	return ((__u64)(zeros + 1) << 24) - (fraction + ((curve * 88) >> 8));
}

/* The handle of the instance of a group that a flow is given; NOBODY if none is up. */
__noinline __u32 pick(const struct tuple *tuple, __u32 id)
{
	struct group *group = bpf_map_lookup_elem(&groups, &id);
	__u32 chosen = NOBODY, hash, weight = 1;
	__u64 best = 0;

	if (!tuple || !group)
		return NOBODY;
	hash = flow_hash(tuple, group->stickiness);
	/* In ascending order of ids, so that the lowest wins among equals. */
	for (int i = 0; i < MAX_INSTANCES; i++) {
		const struct member *member = &group->members[i];
		struct instance *instance;
		__u64 mine;

		if (i >= group->count)
			break;
		instance = find_instance(member->handle);
		if (!instance || instance->state != INSTANCE_UP)
			continue;
		mine = cost(mix(hash ^ mix(member->id)));
		if (chosen == NOBODY || mine * weight < best * member->weight) {
			chosen = member->handle;
			weight = member->weight;
			best = mine;
		}
	}
	if (chosen == NOBODY && group->skip)
		chosen = SKIPPED;
	/* The group went, and another took its place in memory, while it was read. */
	return *(const volatile __u32 *)&group->id == id ? chosen : NOBODY;
}

/* What a flow begins with. */
__noinline int choose(const struct tuple *tuple, const struct path *path, struct flow *flow)
{
	if (!tuple || !path || !flow)
		return 0;
	flow->site = path->site;
	flow->count = path->count;
	for (int i = 0; i < MAX_HOPS; i++)
		flow->instances[i] = i < path->count ? pick(tuple, path->groups[i]) : NOBODY;
	/* Last: if the path went, and another took its place in memory, this is not the one that was asked for. */
	flow->path = *(const volatile __u32 *)&path->id;
	return 0;
}

static __always_inline void flow_key4(__u32 realm, const struct tuple *tuple, int direction, struct flow_key4 *key)
{
	key->realm = realm;
	key->local = direction == UP ? tuple->source[3] : tuple->destination[3];
	key->remote = direction == UP ? tuple->destination[3] : tuple->source[3];
	key->local_port = direction == UP ? tuple->source_port : tuple->destination_port;
	key->remote_port = direction == UP ? tuple->destination_port : tuple->source_port;
	key->protocol = tuple->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

static __always_inline void flow_key6(__u32 realm, const struct tuple *tuple, int direction, struct flow_key6 *key)
{
	key->realm = realm;
	__builtin_memcpy(key->local, direction == UP ? tuple->source : tuple->destination, sizeof(key->local));
	__builtin_memcpy(key->remote, direction == UP ? tuple->destination : tuple->source, sizeof(key->remote));
	key->local_port = direction == UP ? tuple->source_port : tuple->destination_port;
	key->remote_port = direction == UP ? tuple->destination_port : tuple->source_port;
	key->protocol = tuple->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

static __noinline struct entry *look_up_flow(const struct packet *packet, __u32 realm, int direction)
{
	if (packet->family == 4) {
		struct flow_key4 key;

		flow_key4(realm, &packet->tuple, direction, &key);
		return bpf_map_lookup_elem(&flows4, &key);
	}
	struct flow_key6 key;

	flow_key6(realm, &packet->tuple, direction, &key);
	return bpf_map_lookup_elem(&flows6, &key);
}

static __always_inline struct flow *known_flow(const struct packet *packet, __u32 realm, int direction)
{
	struct entry *entry = look_up_flow(packet, realm, direction);

	return entry ? &entry->flow : NULL;
}

static __always_inline int is_closed(__u32 state)
{
	return state & RESET || (state & (FIN_UP | FIN_DOWN)) == (FIN_UP | FIN_DOWN);
}

static __always_inline __u32 state_of(const struct packet *packet, int direction)
{
	__u32 state = SEEN_UP << direction;

	if (packet->tcp_flags & TCP_FIN)
		state |= FIN_UP << direction;
	if (packet->tcp_flags & TCP_RST)
		state |= RESET;
	return state;
}

static __always_inline int opens_connection(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The flow no longer counts as half-open. */
static __noinline int answered(__u32 site)
{
	struct load *load = bpf_map_lookup_elem(&loads, &site);

	if (load)
		__sync_fetch_and_add(&load->half_open, -1);
	return 0;
}

/* A flow's entry is looked at by all CPUs: what has not changed is not written. */
#define SEEN_EVERY 100000000

/*
 * Notes that the flow is alive. It is open once it was seen in both directions; a TCP connection only after its three
 * handshakes, since a server answers floods too (RFC 4987).
 */
static __always_inline void touch(struct flow *entry, const struct packet *packet, int direction)
{
	__u32 state = entry->state | state_of(packet, direction);
	__u64 now = bpf_ktime_get_coarse_ns();

	if (packet->error)
		return;
	if (now - entry->seen > SEEN_EVERY)
		entry->seen = now;
	if (state & HALF_OPEN && (state & (SEEN_UP | SEEN_DOWN)) == (SEEN_UP | SEEN_DOWN) &&
	    !(packet->tcp_flags & TCP_SYN)) {
		state &= ~HALF_OPEN;
		answered(entry->site);
	}
	if (entry->state == state)
		return;
	entry->state = state;
	entry->seen = now;
}

enum room {
	/* For the entry of one more flow of the site. */
	ROOM,
	NO_ROOM,
	/* The site opens flows too fast. */
	TOO_FAST,
};

/*
 * Two CPUs at once may let one flow too many pass; that is no harm. They may also both find a flow open now and take it off the
 * half-open ones twice: so a number below zero is no flow too, and not very many.
 */
static __noinline enum room make_room(__u32 site)
{
	struct load *load = bpf_map_lookup_elem(&loads, &site), none = {};
	struct element *element;
	__u32 zero = 0;

	element = bpf_map_lookup_elem(&elements, &zero);
	if (!element)
		return NO_ROOM;
	if (!load) {
		bpf_map_update_elem(&loads, &site, &none, BPF_NOEXIST);
		load = bpf_map_lookup_elem(&loads, &site);
		if (!load)
			return NO_ROOM;
	}
	if (element->interval) {
		__u64 now = bpf_ktime_get_ns(), next = load->next;

		if (next > now + element->burst)
			return TOO_FAST;
		load->next = (next > now ? next : now) + element->interval;
	}
	if ((element->flows && (__s32)load->flows >= (__s64)element->flows) ||
	    (element->half_open && (__s32)load->half_open >= (__s64)element->half_open))
		return NO_ROOM;
	__sync_fetch_and_add(&load->flows, 1);
	__sync_fetch_and_add(&load->half_open, 1);
	return ROOM;
}

static __always_inline void leave_room(__u32 site)
{
	struct load *load = bpf_map_lookup_elem(&loads, &site);

	if (!load)
		return;
	__sync_fetch_and_add(&load->flows, -1);
	__sync_fetch_and_add(&load->half_open, -1);
}

/* Removes an entry whose flow is over, and takes it out of its site's numbers. */
static __always_inline void forget(void *map, const void *key, struct entry *entry)
{
	struct load *load;
	__u32 site = entry->flow.site, half_open = entry->flow.state & HALF_OPEN;

	settle(entry);
	if (bpf_map_delete_elem(map, key))
		return;
	load = bpf_map_lookup_elem(&loads, &site);
	if (!load)
		return;
	__sync_fetch_and_add(&load->flows, -1);
	if (half_open)
		__sync_fetch_and_add(&load->half_open, -1);
}

/*
 * Gives the flow an entry if there is room; answers TOO_FAST if its first packet has to be dropped. What was there before
 * is of a connection that is over, of a path that is gone, or of what the site had marked otherwise.
 */
static __always_inline enum room insert_under(void *map, const void *key, const struct packet *packet, struct flow *flow,
					      int direction)
{
	struct entry *former = bpf_map_lookup_elem(map, key), *entry;
	enum room room;
	__u32 zero = 0;

	/* Whether there is room or not: later packets must not follow what this one does not. */
	if (former)
		forget(map, key, former);
	room = make_room(flow->site);
	if (room != ROOM)
		return room;
	entry = bpf_map_lookup_elem(&new_entry, &zero);
	if (!entry)
		return ROOM;
	flow->seen = bpf_ktime_get_coarse_ns();
	flow->state = state_of(packet, direction) | HALF_OPEN;
	entry->flow = *flow;
	/* The table is full, or another CPU was faster and made the same choice. */
	if (bpf_map_update_elem(map, key, entry, BPF_NOEXIST))
		leave_room(flow->site);
	return ROOM;
}

/* (Not a global function: Linux 6.1 takes the argument of one for no value of a map.) */
static __noinline enum room insert_flow(const struct packet *packet, struct flow *flow, __u32 realm, int direction)
{
	if (packet->family == 4) {
		struct flow_key4 key;

		flow_key4(realm, &packet->tuple, direction, &key);
		return insert_under(&flows4, &key, packet, flow, direction);
	}
	struct flow_key6 key;

	flow_key6(realm, &packet->tuple, direction, &key);
	return insert_under(&flows6, &key, packet, flow, direction);
}

#endif
