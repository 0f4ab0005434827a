/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What a program says of a packet, and how packets are counted. */
#ifndef CATENA_VERDICT_H
#define CATENA_VERDICT_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"

/* Not ours to decide: the next program, and then the stack. TCX_NEXT and TC_ACT_UNSPEC are the same number. */
#define NEXT TC_ACT_UNSPEC

/*
 * As they go over a wire: a super-frame of GSO is as many packets as it becomes. Where nobody says how many these are, as of what
 * virtual machines send and after bpf_skb_adjust_room, by their size: a last one that is not full may not count.
 */
static __always_inline __u32 packets_of(const struct __sk_buff *skb)
{
	__u32 segments = skb->gso_segs;

	if (!segments && skb->gso_size)
		segments = skb->len / skb->gso_size;
	return segments ? segments : 1;
}


static __always_inline void add(struct counter *counter, __u32 packets, __u32 length)
{
	counter->packets += packets;
	counter->bytes += length - ETH_HLEN;
}

#endif
