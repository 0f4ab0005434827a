/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Flows: which path, and which instance at each of its hops. One entry serves both directions.
 *
 * The choice is rendezvous hashing, the same as catena_model::packet::{flow_hash, pick} (a test compares the two), so a
 * flow whose entry is lost finds its instances again as long as its path is the same.
 */
#ifndef CATENA_FLOW_H
#define CATENA_FLOW_H

#include "packet.h"

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

static __always_inline void flow_key(__u32 site, const struct tuple *tuple, struct flow_key *key)
{
	int order = 0;

	for (int i = 3; i >= 0; i--) {
		__u32 source = bpf_ntohl(tuple->source[i]);
		__u32 destination = bpf_ntohl(tuple->destination[i]);

		if (source != destination)
			order = source < destination ? -1 : 1;
	}
	if (!order)
		order = tuple->source_port <= tuple->destination_port ? -1 : 1;

	__builtin_memset(key, 0, sizeof(*key));
	key->site = site;
	key->protocol = tuple->protocol;
	if (order < 0) {
		__builtin_memcpy(key->low, tuple->source, sizeof(key->low));
		__builtin_memcpy(key->high, tuple->destination, sizeof(key->high));
		key->low_port = tuple->source_port;
		key->high_port = tuple->destination_port;
	} else {
		__builtin_memcpy(key->low, tuple->destination, sizeof(key->low));
		__builtin_memcpy(key->high, tuple->source, sizeof(key->high));
		key->low_port = tuple->destination_port;
		key->high_port = tuple->source_port;
	}
}

static __always_inline __u32 flow_hash(const struct flow_key *key)
{
	__u32 hash = HASH_KEY;

	for (int i = 0; i < 4; i++)
		hash = mix(hash ^ bpf_ntohl(key->low[i]));
	hash = mix(hash ^ key->low_port);
	for (int i = 0; i < 4; i++)
		hash = mix(hash ^ bpf_ntohl(key->high[i]));
	hash = mix(hash ^ key->high_port);
	return mix(hash ^ key->protocol);
}

/* catena_model::packet::cost */
static __always_inline __u64 cost(__u32 drawn)
{
	__u64 fraction, curve;
	__u32 zeros = 0, bits = drawn ? drawn : 1, n = bits;

	if (!(n >> 16)) { zeros += 16; n <<= 16; }
	if (!(n >> 24)) { zeros += 8; n <<= 8; }
	if (!(n >> 28)) { zeros += 4; n <<= 4; }
	if (!(n >> 30)) { zeros += 2; n <<= 2; }
	if (!(n >> 31)) { zeros += 1; n <<= 1; }
	fraction = (n << 1) >> 8;
	curve = (fraction * ((1 << 24) - fraction)) >> 24;
	return ((__u64)(zeros + 1) << 24) - (fraction + ((curve * 88) >> 8));
}

/* Instances stand in ascending order, so that the lowest id wins among equals. */
__noinline __u32 pick(__u32 hash, const struct hop *hop)
{
	__u32 chosen = NO_INSTANCE;
	__u64 best = 0;

	if (!hop)
		return NO_INSTANCE;
	for (int i = 0; i < MAX_INSTANCES; i++) {
		__u32 id = hop->instances[i];
		__u64 score = cost(mix(hash ^ mix(id)));

		if (i >= hop->count)
			break;
		if (chosen == NO_INSTANCE || score < best) {
			chosen = id;
			best = score;
		}
	}
	return chosen;
}

__noinline int choose(const struct flow_key *key, __u32 id, const struct path *path, struct flow *flow)
{
	__u32 hash;

	if (!key || !path || !flow)
		return 0;
	hash = flow_hash(key);
	flow->seen = 0;
	flow->path = id;
	flow->state = 0;
	for (int i = 0; i < MAX_HOPS; i++)
		flow->instances[i] = i < path->count ? pick(hash, &path->hops[i]) : NO_INSTANCE;
	return 0;
}

/* The verifier wants to see the bound that the compiler knows and would leave out. */
static __always_inline __u32 instance_at(const struct flow *flow, __u32 position)
{
	barrier_var(position);
	return flow->instances[position & (MAX_HOPS - 1)];
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

/* Notes that the flow is alive. Writes only what differs: the entry is shared by all CPUs. */
static __always_inline void touch(struct flow *entry, const struct packet *packet, int direction)
{
	__u32 state = entry->state | state_of(packet, direction);
	__u64 now = bpf_ktime_get_ns();

	if (packet->error)
		return;
	if (now - entry->seen > 100000000)
		entry->seen = now;
	if (entry->state != state) {
		entry->state = state;
		entry->seen = now;
	}
}

/*
 * The entry of a flow, if it can be followed: its path stands, and it is not a closed connection whose ports are being
 * used again.
 */
static __always_inline struct flow *find_flow(const struct flow_key *key, const struct packet *packet)
{
	struct flow *entry = bpf_map_lookup_elem(&flows, key);
	__u32 path;

	if (!entry || (is_closed(entry->state) && opens_connection(packet)))
		return NULL;
	path = entry->path;
	return bpf_map_lookup_elem(&paths, &path) ? entry : NULL;
}

/* When the table is full the flow has no entry, and every packet makes the same choice again. */
static __always_inline void insert_flow(const struct flow_key *key, struct flow *flow, const struct packet *packet,
					int direction)
{
	if (packet->error)
		return;
	flow->seen = bpf_ktime_get_ns();
	flow->state = state_of(packet, direction);
	bpf_map_update_elem(&flows, key, flow, BPF_ANY);
}

#endif
