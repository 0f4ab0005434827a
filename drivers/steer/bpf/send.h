/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Handing a packet on: to a side of a function, or out at the end of a path.
 *
 * To l3, the kernel finds the neighbour's MAC address (bpf_redirect_neigh) and touches nothing of the IP packet. To l2,
 * the Ethernet addresses become tags: the source says path, position and direction, and the destination is what the
 * source of the other direction is, so that a learning bridge finds each on the side where it expects it, and a frame
 * that a function answers by swapping addresses bears a proper tag too.
 */
#ifndef CATENA_SEND_H
#define CATENA_SEND_H

#include <linux/if_ether.h>

#include "count.h"
#include "packet.h"

/* asm/socket.h's, which clang's bpf target does not find everywhere */
#define ADDRESS_FAMILY_V4 2
#define ADDRESS_FAMILY_V6 10

/* 02: locally administered (IEEE 802), and ca for catena. */
#define TAG_FIRST 0x02
#define TAG_SECOND 0xca
#define TAG_DOWN 0x80
#define TAG_POSITION 0x0f

/* Which place of which path a packet is at. */
struct place {
	__u32 site;
	__u32 path;
	/* Of the function that it goes to or comes from. */
	__s32 position;
	__u32 direction;
};

static __always_inline void write_tag(__u8 mac[ETH_ALEN], __u32 path, __u32 position, __u32 direction)
{
	mac[0] = TAG_FIRST;
	mac[1] = TAG_SECOND;
	mac[2] = path >> 16;
	mac[3] = path >> 8;
	mac[4] = path;
	mac[5] = (direction == DOWN ? TAG_DOWN : 0) | (position & TAG_POSITION);
}

/* Whether `mac` is a tag, and which. */
static __always_inline int read_tag(const __u8 mac[ETH_ALEN], struct place *place)
{
	if (mac[0] != TAG_FIRST || mac[1] != TAG_SECOND)
		return 0;
	place->path = (__u32)mac[2] << 16 | (__u32)mac[3] << 8 | mac[4];
	place->position = mac[5] & TAG_POSITION;
	place->direction = mac[5] & TAG_DOWN ? DOWN : UP;
	return 1;
}

/* bpf_redirect drops what is too long for the port in silence: look first. Segments of a super-frame count alone. */
static __always_inline int check_size(struct __sk_buff *skb, __u32 ifindex)
{
	__u32 mtu = 0;
	long outcome = bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);

	if (outcome > 0)
		return drop(skb, DROP_TOO_BIG);
	if (outcome < 0)
		return drop(skb, DROP_MISSING);
	return 0;
}

static __noinline int send_l3(struct __sk_buff *skb, __u8 family, const struct side *side)
{
	struct bpf_redir_neigh next = {};
	int verdict = check_size(skb, side->ifindex);

	if (verdict)
		return verdict;
	if (family == 4 ? !side->has_v4 : !side->has_v6)
		return drop(skb, DROP_MISSING);
	if (family == 4) {
		next.nh_family = ADDRESS_FAMILY_V4;
		next.ipv4_nh = side->v4;
	} else {
		next.nh_family = ADDRESS_FAMILY_V6;
		__builtin_memcpy(next.ipv6_nh, side->v6, sizeof(next.ipv6_nh));
	}
	return bpf_redirect_neigh(side->ifindex, &next, sizeof(next), 0);
}

static __noinline int send_l2(struct __sk_buff *skb, const struct place *place, const struct side *side)
{
	struct {
		__u8 destination[ETH_ALEN];
		__u8 source[ETH_ALEN];
	} addresses;
	int verdict = check_size(skb, side->ifindex);

	if (verdict)
		return verdict;
	write_tag(addresses.source, place->path, place->position, place->direction);
	write_tag(addresses.destination, place->path, place->position, !place->direction);
	if (bpf_skb_store_bytes(skb, 0, &addresses, sizeof(addresses), 0))
		return drop(skb, DROP_KERNEL);
	return bpf_redirect(side->ifindex, 0);
}

/* Out at the end of `direction`: `counted` says whether by way of a path or beside all of them. */
static __noinline int leave(struct __sk_buff *skb, __u8 family, const struct policy *policy, const struct place *place,
			    __u8 counted)
{
	int verdict;

	if (!policy->has_exits)
		return drop(skb, DROP_MISSING);
	verdict = send_l3(skb, family, &policy->exits[place->direction & 1]);
	if (verdict == TC_ACT_REDIRECT)
		count(skb, counted, place->direction, 0, counted == COUNT_EXIT ? place->path : place->site, 0);
	return verdict;
}

/* To the function at the place's position, which is within the path. */
static __always_inline int enter(struct __sk_buff *skb, __u8 family, const struct place *place, __u32 id)
{
	struct instance *instance;
	const struct side *side;
	int verdict;

	if (id == NO_INSTANCE)
		return drop(skb, DROP_NO_INSTANCE);
	instance = bpf_map_lookup_elem(&instances, &id);
	if (!instance)
		return drop(skb, DROP_MISSING);
	side = place->direction == UP ? &instance->inside : &instance->outside;
	verdict = instance->insertion == L2 ? send_l2(skb, place, side) : send_l3(skb, family, side);
	if (verdict == TC_ACT_REDIRECT)
		count(skb, COUNT_HOP, place->direction, place->position, place->path, id);
	return verdict;
}

#endif
