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

/* As they go over a wire: a super-frame of GSO is as many packets as it becomes. */
static __always_inline __u32 packets_of(const struct __sk_buff *skb)
{
	return skb->gso_segs > 1 ? skb->gso_segs : 1;
}

static __always_inline void add(struct counter *counter, const struct __sk_buff *skb, __u32 length)
{
	counter->packets += packets_of(skb);
	counter->bytes += length - ETH_HLEN;
}

#endif
