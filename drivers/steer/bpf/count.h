/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The counters that verdicts leave behind. */
#ifndef CATENA_COUNT_H
#define CATENA_COUNT_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>

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

/* How long the headers are that each segment of a plain packet has. */
static __always_inline __u32 headers_of(struct __sk_buff *skb)
{
	__u8 version = 0, protocol = 0, words = 0;
	__u32 length = ETH_HLEN;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		bpf_skb_load_bytes(skb, ETH_HLEN, &version, sizeof(version));
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &protocol, sizeof(protocol));
		length += (version & 0xf) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol, sizeof(protocol));
		length += sizeof(struct ipv6hdr);
	}
	if (protocol == IPPROTO_UDP)
		return length + sizeof(struct udphdr);
	if (protocol != IPPROTO_TCP)
		return length;
	bpf_skb_load_bytes(skb, length + 12, &words, sizeof(words));
	return length + (words >> 4) * 4;
}

/* Of a super-frame that nobody says the number of. */
__noinline __u32 count_segments(struct __sk_buff *skb)
{
	__u32 headers = headers_of(skb), size = skb->gso_size;

	return size && skb->len > headers ? (skb->len - headers + size - 1) / size : 1;
}

/* As packets_of, but none is missing: what functions are given and hand back is compared. */
static __always_inline __u32 all_packets_of(struct __sk_buff *skb)
{
	return !skb->gso_size ? 1 : skb->gso_segs ? skb->gso_segs : count_segments(skb);
}

static __always_inline void count_packets(__u32 packets, __u32 length, __u8 counted, __u8 direction, __u8 position,
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
		add(counter, packets, length);
}

static __always_inline void count(struct __sk_buff *skb, __u8 counted, __u8 direction, __u8 position, __u32 of,
				  __u32 instance)
{
	count_packets(packets_of(skb), skb->len, counted, direction, position, of, instance);
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
