/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * A frame on its way out of a port to a neighbour: straight into the other end of a veth pair where the neighbour was heard,
 * or by the kernel, which finds it. What is done with what cannot go is for the caller to say.
 */
#ifndef CATENA_EGRESS_H
#define CATENA_EGRESS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "layout.h"
#include "neighbour.h"

/* asm/socket.h's, which clang's bpf target does not find everywhere */
#define ADDRESS_FAMILY_V4 2
#define ADDRESS_FAMILY_V6 10

#define LOOK_EVERY 1000000000
/* The loader says so often that it looks after neighbours; after this long without a word nobody does. */
#define ATTENDED_FOR 20000000000

/* What every link carries: no need to ask (RFC 791; an IPv6 link carries 1280). */
#define SURELY_FITS 576

/*
 * Whether the packet fits the port: bpf_redirect drops what is too long in silence. Segments of a super-frame count alone.
 * 0, or why it is dropped, plus 1; if it is too big, the longest IP packet that fits is left in the control block.
 */
__noinline int misfit(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;
	long outcome = bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);

	if (outcome > 0) {
		skb->cb[0] = mtu;
		return DROP_TOO_BIG + 1;
	}
	return outcome < 0 ? DROP_MISSING + 1 : 0;
}

static __always_inline int does_not_fit(struct __sk_buff *skb, __u32 ifindex)
{
	return skb->len <= SURELY_FITS ? 0 : misfit(skb, ifindex);
}

/* When the loader last saw to it that the kernel asks for its neighbours (bpf_ktime_get_coarse_ns). */
MAP(attended, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);

/*
 * Who answers for the neighbour, as far as it was heard: the kernel asks, and neighbour.h listens. Returns whether somebody sees
 * to it that the kernel does, also where it sees no packet.
 */
static __noinline int look_for_neighbour(__u32 family, struct side *side)
{
	struct neighbour_key key = { .ifindex = side->ifindex };
	__u64 *heard, *when, nobody = 0;
	__u32 zero = 0;

	if (family == 4)
		map_v4(key.address, side->v4);
	else
		__builtin_memcpy(key.address, side->v6, sizeof(key.address));
	heard = bpf_map_lookup_elem(&neighbours, &key);
	/* From now on we listen. */
	if (!heard)
		bpf_map_update_elem(&neighbours, &key, &nobody, BPF_NOEXIST);
	if (family == 4)
		side->v4_mac = heard ? *heard : 0;
	else
		side->v6_mac = heard ? *heard : 0;
	when = bpf_map_lookup_elem(&attended, &zero);
	return when && bpf_ktime_get_coarse_ns() - *when < ATTENDED_FOR;
}

/* Writes both addresses: 12 bytes, the upper 16 bits of either word do not count. */
static __always_inline int write_macs(struct __sk_buff *skb, __u64 destination, __u64 source)
{
	__u8 *data = (__u8 *)(long)skb->data;

	if (data + ETH_HLEN > (__u8 *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(data, &destination, ETH_ALEN);
	__builtin_memcpy(data + ETH_ALEN, &source, ETH_ALEN);
	return 0;
}

/*
 * The neighbour's MAC address, if the frame may go straight to it; else 0, and the kernel is to send it. That way has a queue
 * and this one has none: who changes from one to the other lets packets overtake each other, so only what is not known goes by
 * the kernel. That it asks again in time whether the neighbour is still there is seen to by the loader (neighbours.rs); when
 * there is none any more, by a packet a second.
 */
static __always_inline __u64 heard_neighbour(__u32 family, struct side *side)
{
	__u64 mac, now;

	if (!side->direct)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	if (now - side->looked > LOOK_EVERY) {
		side->looked = now;
		look_for_neighbour(4, side);
		if (!look_for_neighbour(6, side))
			return 0;
	}
	mac = family == 4 ? side->v4_mac : side->v6_mac;
	return mac & HEARD ? mac : 0;
}

/* The kernel's way: it finds the neighbour, and asks for it if it has to. */
static __always_inline int to_neighbour(__u32 ifindex, __u32 family, const __be32 *address)
{
	struct bpf_redir_neigh next = {};

	if (family == 4) {
		next.nh_family = ADDRESS_FAMILY_V4;
		next.ipv4_nh = *address;
	} else {
		next.nh_family = ADDRESS_FAMILY_V6;
		__builtin_memcpy(next.ipv6_nh, address, sizeof(next.ipv6_nh));
	}
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

#endif
