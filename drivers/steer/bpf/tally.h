/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What packets of known flows are counted in: the flow's entry, which is in the cache when they come. A counter of its own for
 * each hop of each path would not be, with many tenants, and looking it up costs more than all that is decided.
 *
 * An entry has a word for each place that a packet can come to and each direction: the packets in its upper bits, their bytes
 * below. Before a word is full, when the flow is forgotten and when counters are read, the words are added up: to
 * `counters` of the place that was come to, and to `returned` of the function before it. Only fast.h counts here; whoever goes
 * the long way is counted at once.
 */
#ifndef CATENA_TALLY_H
#define CATENA_TALLY_H

#include "count.h"
#include "instance.h"

#define TALLY_SHIFT 21
#define TALLY_BYTES ((1U << TALLY_SHIFT) - 1)
/* Either half is more than half full. */
#define TALLY_FULL (1U << 31 | 1U << (TALLY_SHIFT - 1))
/* So that a word that is half full has room for what other CPUs add before it is emptied. */
#define TALLY_MOST_PACKETS 128
#define TALLY_MOST_BYTES (1U << 17)

/* Where a packet that has passed so many functions comes to in its flow's path; outside: -1 or `count`. */
static __always_inline int position_of(const struct flow *flow, __u32 passed, __u32 direction)
{
	return direction == UP ? (int)passed : (int)flow->count - 1 - (int)passed;
}

static __always_inline __u32 handle_of(const struct flow *flow, int position)
{
	return position < 0 || position >= flow->count ? NOBODY : instance_at(flow, position);
}

/* Sweeping does this while packets come: none of the two may lose what the other one adds. */
static __always_inline void add_sum(struct counter *counter, __u64 sum)
{
	if (!counter)
		return;
	__sync_fetch_and_add(&counter->packets, sum >> 32);
	__sync_fetch_and_add(&counter->bytes, (__u32)sum);
}

/*
 * To the counters of a place: of the path's end where `position` is -1, and else of the hop that has instance `to`; and of what
 * came back from instance `from`, if there is one. `sum`: packets in the upper half, bytes in the lower. (A global function of
 * numbers alone: the verifier looks at it once, and not for each word of each entry.)
 */
__noinline int add_up(__u64 sum, __u32 path, __u32 to, __u32 from, __s32 position_and_direction)
{
	struct counter_key key = { .direction = position_and_direction & 1, .of = path };
	struct instance *instance = find_instance(to);
	int position = position_and_direction >> 1;

	if (position < 0) {
		key.counted = COUNT_EXIT;
		add_sum(find_counter(&key), sum);
	} else if (instance) {
		key.counted = COUNT_HOP;
		key.position = position;
		key.instance = instance->id;
		add_sum(find_counter(&key), sum);
	}
	if (find_instance(from))
		add_sum(find_returned(from, key.direction), sum);
	return 0;
}

static __always_inline void add_up_at(const struct flow *flow, __u32 passed, __u32 direction, __u32 packets, __u32 bytes)
{
	int position = position_of(flow, passed, direction);
	__u32 to = handle_of(flow, position);
	__u32 from = passed ? handle_of(flow, direction == UP ? position - 1 : position + 1) : NOBODY;

	if (position >= flow->count)
		position = -1;
	add_up((__u64)packets << 32 | bytes, flow->path, to, from, position * 2 + direction);
}

/* Adds up one word of an entry. */
static __always_inline void settle_word(struct entry *entry, __u32 at)
{
	__u32 sum;

	if (at >= 2 * PLACES || !entry->passed[at])
		return;
	sum = __sync_lock_test_and_set(&entry->passed[at], 0);
	add_up_at(&entry->flow, at / 2, at % 2, sum >> TALLY_SHIFT, sum & TALLY_BYTES);
}

/* Adds up all words of an entry. */
__noinline int settle(struct entry *entry)
{
	if (!entry)
		return 0;
	for (int at = 0; at < 2 * PLACES; at++)
		settle_word(entry, at);
	return 0;
}

/* Counts a packet that has passed so many functions, and comes to its next place. */
static __always_inline void tally(struct __sk_buff *skb, struct entry *entry, __u32 passed, __u32 direction)
{
	__u32 packets = all_packets_of(skb), bytes = skb->len - ETH_HLEN, at = 2 * passed + direction, was;

	if (at >= 2 * PLACES)
		return;
	if (packets > TALLY_MOST_PACKETS || bytes > TALLY_MOST_BYTES) {
		add_up_at(&entry->flow, passed, direction, packets, bytes);
		return;
	}
	was = __sync_fetch_and_add(&entry->passed[at], packets << TALLY_SHIFT | bytes);
	if (was & TALLY_FULL)
		settle(entry);
}

#endif
