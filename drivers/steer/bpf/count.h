/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The counters that verdicts leave behind. */
#ifndef CATENA_COUNT_H
#define CATENA_COUNT_H

#include "layout.h"
#include "maps.h"
#include "verdict.h"

/* NULL when the map is full: a new counter is not kept then. */
static __always_inline struct counter *find_counter(const struct counter_key *key)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, key), zero = {};

	if (counter)
		return counter;
	/* Another CPU may have been faster: then that one's is found. */
	bpf_map_update_elem(&counters, key, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(&counters, key);
}

/* What comes back from the instance with this handle. */
static __always_inline struct counter *find_returned(__u32 handle, __u32 direction)
{
	__u32 at = 2 * (handle % INSTANCE_SLOTS) + (direction & 1);

	return bpf_map_lookup_elem(&returned, &at);
}

static __always_inline void count_length(struct __sk_buff *skb, __u32 length, __u8 counted, __u8 direction, __u8 position,
					 __u32 of, __u32 instance)
{
	struct counter_key key = {
		.counted = counted,
		.direction = direction,
		.position = position,
		.of = of,
		.instance = instance,
	};
	struct counter *counter = find_counter(&key);

	if (counter)
		add(counter, skb, length);
}

static __always_inline void count(struct __sk_buff *skb, __u8 counted, __u8 direction, __u8 position, __u32 of,
				  __u32 instance)
{
	count_length(skb, skb->len, counted, direction, position, of, instance);
}

/* `path` is 0 where none was found yet. */
__noinline int drop_on(struct __sk_buff *skb, __u32 path, __u8 reason)
{
	count(skb, COUNT_DROPPED, 0, reason, path, 0);
	return TC_ACT_SHOT;
}

static __always_inline int drop(struct __sk_buff *skb, __u8 reason)
{
	return drop_on(skb, 0, reason);
}

#endif
