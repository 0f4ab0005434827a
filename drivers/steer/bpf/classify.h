/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Whose packet is it, and what does that site's policy say? Asked once for a flow, or for a packet that has none. */
#ifndef CATENA_CLASSIFY_H
#define CATENA_CLASSIFY_H

#include "packet.h"

enum decision {
	/* No rule matches. */
	UNCLAIMED,
	/* The same, but one would if the packet bore another DSCP. */
	UNMARKED,
	CLAIMED,
	/* Send it through the path. */
	STEERED,
	/* Some rule could match, but the ports are not known. */
	UNDECIDED,
	/* The policy was replaced while it was read. */
	TORN,
	/* The rule is for other ports than those of a fragment, which prove nothing. */
	POSSIBLE,
};

/* An address as two numbers, the first half above. */
struct halves {
	__u64 high;
	__u64 low;
};

/* The first `length` bits of 64, 0 to 64; in two shifts, since one of 64 does nothing. */
static __always_inline __u64 first_bits(__u32 length)
{
	return ~(~0ULL >> (length / 2) >> (length - length / 2));
}

/* The first `length` bits of an address. Without branches: each would double what the verifier has to look at. */
static __always_inline struct halves mask_of(__u32 length)
{
	__u32 beyond = length >> 6, over = (beyond | beyond >> 1) & 1, high = (64 & -over) | (length & (over - 1));

	return (struct halves){ first_bits(high), first_bits(length - high) };
}

static __always_inline struct halves halves_of(const __be32 address[4])
{
	return (struct halves){
		(__u64)bpf_ntohl(address[0]) << 32 | bpf_ntohl(address[1]),
		(__u64)bpf_ntohl(address[2]) << 32 | bpf_ntohl(address[3]),
	};
}

/*
 * The value of the longest prefix of a space that holds `address`; 0 if there is none. One look into a hash for each
 * length that is in use, which are few however many prefixes there are.
 */
__noinline __u32 longest_prefix(__u32 space, __u32 family, const struct in6_addr *address)
{
	__u32 at = 2 * space + (family == 6), value = 0, longest = 0;
	struct prefix_key key = {};
	struct halves halves;
	struct lengths *used;

	if (!address)
		return 0;
	halves = halves_of(address->s6_addr32);
	used = bpf_map_lookup_elem(&lengths, &at);
	if (!used)
		return 0;
	key.space = space;
	key.family = family;
	for (int i = 0; i < MAX_LENGTHS; i++) {
		__u32 length, *found;
		struct halves mask;

		if (i >= used->count)
			break;
		length = used->lengths[i];
		if (value && length <= longest)
			continue;
		key.length = length;
		mask = mask_of(length);
		key.address[0] = bpf_htonl((halves.high & mask.high) >> 32);
		key.address[1] = bpf_htonl(halves.high & mask.high);
		key.address[2] = bpf_htonl((halves.low & mask.low) >> 32);
		key.address[3] = bpf_htonl(halves.low & mask.low);
		found = bpf_map_lookup_elem(&prefixes, &key);
		if (found) {
			value = *found;
			longest = length;
		}
	}
	return value;
}

static __always_inline __u32 site_of(__u8 family, const __be32 address[4])
{
	return longest_prefix(SPACE_SITES, family, (const struct in6_addr *)address);
}

/* The direction of a packet among those in `directions`: up if its source is a site's, else down if its destination is. */
static __always_inline int find_site(const struct packet *packet, __u32 directions, __u32 *site)
{
	if (directions & (1 << UP)) {
		*site = site_of(packet->family, packet->tuple.source);
		if (*site)
			return UP;
	}
	if (directions & (1 << DOWN)) {
		*site = site_of(packet->family, packet->tuple.destination);
		if (*site)
			return DOWN;
	}
	return -1;
}

static __always_inline int within(const __be32 prefix[4], __u8 length, const __be32 address[4])
{
	struct halves one = halves_of(prefix), other = halves_of(address), mask = mask_of(length);

	return !(((one.high ^ other.high) & mask.high) | ((one.low ^ other.low) & mask.low));
}

/* Whether a rule is about packets between these addresses. */
static __always_inline int is_between(const struct rule *rule, __u8 family, const __be32 local[4], const __be32 remote[4])
{
	if (rule->flags & (family == 4 ? RULE_V6 : RULE_V4))
		return 0;
	if (rule->flags & RULE_LOCAL && !within(rule->local, rule->local_length, local))
		return 0;
	return !(rule->flags & RULE_REMOTE) || within(rule->remote, rule->remote_length, remote);
}

/* Whether a rule matches a packet, by the far end's port: UNCLAIMED if not. (A global function: verified once for all rules.) */
__noinline int match(const struct rule *rule, const struct packet *packet, int direction)
{
	const struct tuple *tuple;
	__u16 port;

	if (!rule || !packet)
		return UNDECIDED;
	tuple = &packet->tuple;
	port = direction == UP ? tuple->destination_port : tuple->source_port;
	if (direction == UP ? !is_between(rule, packet->family, tuple->source, tuple->destination)
			    : !is_between(rule, packet->family, tuple->destination, tuple->source))
		return UNCLAIMED;
	/* In IPv6 the protocol too may stand behind what was not seen. */
	if (rule->flags & RULE_PROTOCOL && rule->protocol != tuple->protocol && !(packet->unknown && packet->family == 6))
		return UNCLAIMED;
	if (packet->unknown)
		return UNDECIDED;
	if (rule->flags & RULE_PORTS &&
	    (!has_ports(tuple->protocol) || port < rule->first_port || port > rule->last_port))
		return packet->fragment ? POSSIBLE : UNCLAIMED;
	/* Replies may be marked otherwise: the flow that they answer tells, and without it they are taken for claimed. */
	if (rule->flags & RULE_DSCP && rule->dscp != packet->dscp && direction == UP && !packet->error)
		return UNMARKED;
	return rule->flags & RULE_CLAIM ? CLAIMED : STEERED;
}

/*
 * What tells a policy from all others; 0 if it is not this site's. A map element that was freed by an update may at once be used
 * for the next one, also of another site, while it is still being read: what is read between two answers that are the same
 * is of one policy.
 */
static __always_inline __u32 generation_of(const struct policy *policy, __u32 site)
{
	__u32 generation = *(const volatile __u32 *)&policy->generation;

	return *(const volatile __u32 *)&policy->site == site ? generation : 0;
}

/*
 * What a policy says about a packet as it goes in `direction`. The first rule that matches decides; `path` is set for STEERED.
 * A fragment that none matches goes by the first one that could: else a first fragment with ports that no rule is for
 * could lead later ones round the functions. TORN if the policy is not the site's any more.
 */
__noinline int evaluate(const struct policy *policy, const struct packet *packet, int direction, __u32 *path,
			__u32 site)
{
	struct rules_key key = {};
	struct rules *block = NULL;
	__u32 count, generation, possible_path = 0;
	int possible = UNCLAIMED;

	if (!policy || !packet || !path)
		return UNDECIDED;
	generation = generation_of(policy, site);
	if (!generation)
		return TORN;
	count = policy->count;
	key.generation = generation;
	for (__u32 i = 0; i < MAX_RULES; i++) {
		const struct rule *rule;
		int decision;

		if (i >= count)
			break;
		if (i % RULES_PER_BLOCK == 0) {
			key.block = i / RULES_PER_BLOCK;
			block = bpf_map_lookup_elem(&rules, &key);
		}
		/* Blocks are never changed; this one went with its policy. */
		if (!block)
			return TORN;
		rule = &block->rules[i % RULES_PER_BLOCK];
		decision = match(rule, packet, direction);
		if (decision == UNMARKED) {
			possible = possible == UNCLAIMED ? UNMARKED : possible;
		} else if (decision == POSSIBLE) {
			if (possible == UNCLAIMED || possible == UNMARKED) {
				possible = rule->flags & RULE_CLAIM ? CLAIMED : STEERED;
				possible_path = rule->path;
			}
		} else if (decision != UNCLAIMED) {
			*path = rule->path;
			return generation_of(policy, site) == generation ? decision : TORN;
		}
	}
	*path = possible_path;
	return generation_of(policy, site) == generation ? possible : TORN;
}

/* The same, by the policy of a site; UNDECIDED where it has none. */
static __noinline int classify(__u32 site, const struct packet *packet, int direction, __u32 *path)
{
	int decision = TORN;

	for (int attempt = 0; attempt < 3 && decision == TORN; attempt++) {
		struct policy *policy = bpf_map_lookup_elem(&policies, &site);

		if (!policy)
			return UNDECIDED;
		decision = evaluate(policy, packet, direction, path, site);
	}
	return decision;
}

#endif
