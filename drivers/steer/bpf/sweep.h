/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Looking through the flow tables, within the kernel: asked by the loader, with a struct sweep_request as the packet. */
#ifndef CATENA_SWEEP_H
#define CATENA_SWEEP_H

#include "flow.h"

struct sweep {
	struct sweep_request request;
	__u32 count;
	__u64 now;
	struct element *element;
};

static __always_inline __u64 patience(const struct element *element, const struct flow *flow, __u8 protocol)
{
	if (is_closed(flow->state))
		return element->closed;
	if (flow->state & HALF_OPEN)
		return element->unanswered;
	if (protocol == IPPROTO_TCP)
		return element->connection;
	return protocol == IPPROTO_UDP ? element->conversation : element->other;
}

/* Whether its path is gone. */
static __always_inline int is_orphan(const struct flow *flow)
{
	__u32 path = flow->path;

	return path && !bpf_map_lookup_elem(&paths, &path);
}

/* Whether the task is about this flow. */
static __always_inline int concerns(const struct sweep *sweep, const struct flow *flow, __u8 protocol, __u8 family,
				    __u32 realm, const __be32 local[4])
{
	const struct element *element = sweep->element;
	__u64 idle = sweep->now > flow->seen ? sweep->now - flow->seen : 0;
	__u32 of = sweep->request.of;

	switch (sweep->request.task) {
	case SWEEP_IDLE:
		return idle >= patience(element, flow, protocol) || is_orphan(flow);
	case SWEEP_COUNT:
		return flow->path == sweep->request.of &&
		       idle < (is_closed(flow->state) ? element->closed : element->alive);
	case SWEEP_STRANGERS:
		return !realm && (!of || flow->site == of) && site_of(family, local) != flow->site;
	case SWEEP_PATH:
		return of ? flow->path == of : is_orphan(flow);
	case SWEEP_TALLIES:
		return 1;
	default:
		return 0;
	}
}

static __always_inline int forgets(const struct sweep *sweep)
{
	return sweep->request.task != SWEEP_COUNT && sweep->request.task != SWEEP_TALLIES;
}

static long sweep_flow4(__attribute__((unused)) void *map, const struct flow_key4 *key, struct entry *entry, struct sweep *sweep)
{
	__be32 local[4];

	map_v4(local, key->local);
	if (!concerns(sweep, &entry->flow, key->protocol, 4, key->realm, local))
		return 0;
	sweep->count++;
	if (forgets(sweep))
		forget(&flows4, key, entry);
	else if (sweep->request.task == SWEEP_TALLIES)
		settle(entry);
	return 0;
}

static long sweep_flow6(__attribute__((unused)) void *map, const struct flow_key6 *key, struct entry *entry, struct sweep *sweep)
{
	__be32 local[4];

	__builtin_memcpy(local, key->local, sizeof(local));
	if (!concerns(sweep, &entry->flow, key->protocol, 6, key->realm, local))
		return 0;
	sweep->count++;
	if (forgets(sweep))
		forget(&flows6, key, entry);
	else if (sweep->request.task == SWEEP_TALLIES)
		settle(entry);
	return 0;
}

/* Answers how many flows the task was about. */
SEC("tc")
int catena_sweep(struct __sk_buff *skb)
{
	struct sweep sweep = { .now = bpf_ktime_get_coarse_ns() };
	__u32 zero = 0;

	sweep.element = bpf_map_lookup_elem(&elements, &zero);
	if (!sweep.element || bpf_skb_load_bytes(skb, ETH_HLEN, &sweep.request, sizeof(sweep.request)))
		return 0;
	bpf_for_each_map_elem(&flows4, sweep_flow4, &sweep, 0);
	bpf_for_each_map_elem(&flows6, sweep_flow6, &sweep, 0);
	return sweep.count;
}

#endif
