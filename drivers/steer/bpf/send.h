/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Handing a packet on: to a side of a function, or out at the end of a path.
 *
 * To l3, the kernel finds the neighbour's MAC address (bpf_redirect_neigh) and touches nothing of the IP packet. Where the
 * port is one end of a veth pair, the engine knows that address too (neighbour.h), and puts frames straight into the other
 * end (bpf_redirect_peer), which saves a queue. Once a second a packet goes the kernel's way all the same, so that the
 * kernel keeps asking the neighbour whether it is there.
 *
 * To l2, the Ethernet addresses become tags: the source says path, position and direction, and the destination is what the
 * source of the other direction is, so that a learning bridge finds each on the side where it expects it, and a frame
 * that a function answers by swapping addresses bears a proper tag too.
 */
#ifndef CATENA_SEND_H
#define CATENA_SEND_H

#include <linux/if_ether.h>

#include "count.h"
#include "egress.h"
#include "flow.h"
#include "packet.h"

/* 02: locally administered (IEEE 802), and ca for catena. */
#define TAG_FIRST 0x02
#define TAG_SECOND 0xca
#define TAG_DOWN 0x80
#define TAG_POSITION 0x0f

/* Among verdicts: neither sent nor dropped yet. */
#define TOO_BIG 64

/* Which place of which path a packet is at. */
struct place {
	__u32 path;
	/* Of the function that it goes to or comes from. */
	__s32 position;
	__u16 direction;
	/* What goes there is an answer to the packet as it was parsed. */
	__u16 turned;
};

/* What a frame that comes out of a function says about where it has been. */
enum recognition {
	/* Nothing. */
	UNTOLD,
	TOLD,
	/* It contradicts itself, or what is installed. */
	WRONG,
	/* A service index that no function of ours leaves. */
	BAD_INDEX,
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

/* A frame of a MAC-preserving function. Its tag and the side that it comes out of have to agree. */
static __always_inline int told_by_tag(struct __sk_buff *skb, const struct port *port, struct place *place)
{
	__u8 source[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)) || !read_tag(source, place))
		return UNTOLD;
	return port->roles & (place->direction == UP ? ROLE_OUTSIDE : ROLE_INSIDE) ? TOLD : WRONG;
}

static __always_inline int tells_too_big(void)
{
	__u32 zero = 0;
	struct element *element = bpf_map_lookup_elem(&elements, &zero);

	return element && element->tells_too_big;
}

/* What becomes of a packet that does not fit: TOO_BIG if whoever wanted to send it has to see to its sender being told. */
static __always_inline int refuse(struct __sk_buff *skb, __u32 path, int misfits)
{
	return misfits == DROP_TOO_BIG + 1 && tells_too_big() ? TOO_BIG : drop_on(skb, path, misfits - 1);
}

static __noinline int send_to_neighbour(struct __sk_buff *skb, __u32 path, __u32 family, const struct side *side)
{
	if (family == 4 ? !side->has_v4 : !side->has_v6)
		return drop_on(skb, path, DROP_MISSING);
	return to_neighbour(side->ifindex, family, family == 4 ? &side->v4 : side->v6);
}

static __always_inline int send_l3(struct __sk_buff *skb, __u32 path, __u8 family, struct side *side)
{
	int misfits = does_not_fit(skb, side->ifindex);
	__u64 mac;

	if (misfits)
		return refuse(skb, path, misfits);
	mac = heard_neighbour(family, side);
	if (mac && !write_macs(skb, mac, side->own_mac))
		return bpf_redirect_peer(side->ifindex, 0);
	return send_to_neighbour(skb, path, family, side);
}

/* The Ethernet addresses become tags. */
static __always_inline int write_tags(struct __sk_buff *skb, const struct place *place)
{
	struct {
		__u8 destination[ETH_ALEN];
		__u8 source[ETH_ALEN];
	} tags;

	write_tag(tags.source, place->path, place->position, place->direction);
	write_tag(tags.destination, place->path, place->position, !place->direction);
	return bpf_skb_store_bytes(skb, 0, &tags, sizeof(tags), 0);
}

static __always_inline int send_l2(struct __sk_buff *skb, const struct place *place, const struct side *side)
{
	int misfits = does_not_fit(skb, side->ifindex);

	if (misfits)
		return refuse(skb, place->path, misfits);
	if (write_tags(skb, place))
		return drop_on(skb, place->path, DROP_KERNEL);
	return side->direct ? bpf_redirect_peer(side->ifindex, 0) : bpf_redirect(side->ifindex, 0);
}

#endif
