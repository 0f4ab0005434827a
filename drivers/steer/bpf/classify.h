/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Whose packet is it, and what does that site's policy say? */
#ifndef CATENA_CLASSIFY_H
#define CATENA_CLASSIFY_H

#include "packet.h"

enum decision {
	/* No rule matches. */
	UNCLAIMED,
	CLAIMED,
	/* Send it through the path. */
	STEERED,
	/* Some rule could match, but the ports are not known. */
	UNDECIDED,
	/* The policy was replaced while it was read. */
	TORN,
};

/* The value of the longest prefix that holds `address`, or null. */
static __always_inline __u32 *longest_prefix(void *map4, void *map6, __u8 family, const __be32 address[4])
{
	if (family == 4) {
		struct lpm4 key = { .length = 32, .address = address[3] };

		return bpf_map_lookup_elem(map4, &key);
	}
	struct lpm6 key = { .length = 128 };

	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(map6, &key);
}

static __always_inline __u32 *site_of(__u8 family, const __be32 address[4])
{
	return longest_prefix(&sites4, &sites6, family, address);
}

/* The direction of a packet among those in `directions`: up if its source is a site's, else down if its destination is. */
static __always_inline int find_site(const struct packet *packet, __u32 directions, __u32 *site)
{
	__u32 *found;

	if (directions & (1 << UP)) {
		found = site_of(packet->family, packet->tuple.source);
		if (found) {
			*site = *found;
			return UP;
		}
	}
	if (directions & (1 << DOWN)) {
		found = site_of(packet->family, packet->tuple.destination);
		if (found) {
			*site = *found;
			return DOWN;
		}
	}
	return -1;
}

static __always_inline int within(const struct prefix *prefix, __u8 family, const __be32 address[4])
{
	__be32 different = 0;

	if (!prefix->family)
		return 1;
	if (prefix->family != family)
		return 0;
	for (int i = 0; i < 4; i++)
		different |= (address[i] ^ prefix->address[i]) & prefix->mask[i];
	return !different;
}

/*
 * What `policy` says about a packet as its site would have sent it. The first rule that matches decides; `path` is set
 * for STEERED. A map element that was freed by an update may at once be used for the next update, while it is still
 * being read here: the serial tells.
 */
__noinline int evaluate(const struct policy *policy, const struct packet *packet, const struct tuple *tuple,
			__u32 *path)
{
	const volatile __u64 *now;
	__u64 serial;
	int decision = UNCLAIMED;

	if (!policy || !packet || !tuple || !path)
		return UNDECIDED;
	now = &policy->serial;
	serial = *now;
	for (int i = 0; i < MAX_RULES; i++) {
		const struct rule *rule = &policy->rules[i];

		if (i >= policy->count)
			break;
		if (!within(&rule->local, packet->family, tuple->source) ||
		    !within(&rule->remote, packet->family, tuple->destination))
			continue;
		if (packet->unknown) {
			/* In IPv6 the protocol too may stand behind what was not seen. */
			if (rule->has_protocol && rule->protocol != tuple->protocol && packet->family == 4)
				continue;
			decision = UNDECIDED;
			break;
		}
		if (rule->has_protocol && rule->protocol != tuple->protocol)
			continue;
		/* Else a first fragment with other ports could lead later ones round the functions. */
		if (rule->has_ports && !packet->fragment &&
		    (!has_ports(tuple->protocol) || tuple->destination_port < rule->first_port ||
		     tuple->destination_port > rule->last_port))
			continue;
		*path = rule->path;
		decision = rule->action == ACTION_PATH ? STEERED : CLAIMED;
		break;
	}
	return *now == serial ? decision : TORN;
}

/* The same, from the packet as it goes in `direction`. */
static __always_inline int classify(const struct policy *policy, const struct packet *packet, int direction,
					      __u32 *path)
{
	struct tuple as_sent;

	if (direction == UP)
		return evaluate(policy, packet, &packet->tuple, path);
	reverse(&as_sent, &packet->tuple);
	return evaluate(policy, packet, &as_sent, path);
}

#endif
