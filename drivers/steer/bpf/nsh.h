/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Functions that understand the Network Service Header (RFC 8300) on Ethernet. For all others of a path the engine is the
 * proxy (RFC 7665 section 4.6): they never see it.
 *
 * The service path identifier is the path's number. The service index says position and direction: on the way up it
 * begins at 255 (section 2.3) at the first function, on the way down at 127 at the last one; a function takes one off it.
 *
 * The kernel takes headers only off frames that it knows as IP. So a frame that comes back is received twice: first it
 * gets the EtherType of what is inside and a mark in its source address, the second time the header comes off.
 */
#ifndef CATENA_NSH_H
#define CATENA_NSH_H

#include "send.h"

/* IANA "IEEE 802 Numbers"; RFC 8300 section 12.1. */
#define ETH_P_NSH_ 0x894f
#define NSH_NEXT_V4 1
#define NSH_NEXT_V6 2
#define NSH_MD_FIXED 1
#define NSH_MD_VARIABLE 2
#define NSH_BASE 8
#define NSH_FIXED_LENGTH 24
/* Version 0 and not OAM. */
#define NSH_UNKNOWN 0xe000
#define NSH_TTL 63
#define NSH_FIRST_UP 255
#define NSH_FIRST_DOWN 127

/* The second byte of the mark, see TAG_SECOND. */
#define NSH_SECOND 0xcb

struct nsh {
	/* Version, O, U, TTL in 6 bits, length in 6 bits of 4 bytes (section 2.2). */
	__be16 first;
	__u8 md_type;
	__u8 next;
	/* Service path identifier in 24 bits, service index in 8. */
	__be32 path_and_index;
	__be32 context[4];
};

static __always_inline __u32 service_index(const struct place *place)
{
	return place->direction == UP ? NSH_FIRST_UP - place->position
				      : NSH_FIRST_DOWN - (MAX_HOPS - 1 - place->position);
}

/* Position and direction of the function that has to be passed when the index is `index`. */
static __always_inline int place_of(__u32 index, struct place *place)
{
	if (index > NSH_FIRST_UP)
		return -1;
	if (index > NSH_FIRST_UP - MAX_HOPS) {
		place->direction = UP;
		place->position = NSH_FIRST_UP - index;
		return 0;
	}
	if (index > NSH_FIRST_DOWN || index <= NSH_FIRST_DOWN - MAX_HOPS)
		return -1;
	place->direction = DOWN;
	place->position = MAX_HOPS - 1 - (NSH_FIRST_DOWN - index);
	return 0;
}

static __noinline int send_nsh(struct __sk_buff *skb, __u32 family, const struct place *place, const struct side *side,
			       __u32 insertion)
{
	__u32 length = insertion == NSH_FIXED ? NSH_FIXED_LENGTH : NSH_BASE, mtu = 0;
	__be16 ethertype = bpf_htons(ETH_P_NSH_);
	struct nsh nsh = {};

	/* Super-frames cannot be cut behind a header that the kernel does not know. */
	if (skb->gso_size)
		return drop_on(skb, place->path, DROP_KERNEL);
	if (bpf_check_mtu(skb, side->ifindex, &mtu, length, 0)) {
		skb->cb[0] = mtu - length;
		return refuse(skb, place->path, 1 + (mtu ? DROP_TOO_BIG : DROP_MISSING));
	}
	nsh.first = bpf_htons(NSH_TTL << 6 | length / 4);
	nsh.md_type = insertion == NSH_FIXED ? NSH_MD_FIXED : NSH_MD_VARIABLE;
	nsh.next = family == 4 ? NSH_NEXT_V4 : NSH_NEXT_V6;
	nsh.path_and_index = bpf_htonl(place->path << 8 | service_index(place));
	if (bpf_skb_adjust_room(skb, length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    (length == NSH_BASE ? bpf_skb_store_bytes(skb, ETH_HLEN, &nsh, NSH_BASE, 0)
				: bpf_skb_store_bytes(skb, ETH_HLEN, &nsh, sizeof(nsh), 0)) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype), 0) ||
	    write_tags(skb, place))
		return drop_on(skb, place->path, DROP_KERNEL);
	/* By the queue: it is there that the kernel reads the new EtherType. */
	return bpf_redirect(side->ifindex, 0);
}

static __always_inline int is_nsh(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_NSH_);
}

/* The first time: makes the kernel take the frame for what is inside. */
__noinline int receive_again(struct __sk_buff *skb)
{
	__u8 mark[ETH_ALEN] = { TAG_FIRST, NSH_SECOND };
	__be16 ethertype;
	struct nsh nsh;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &nsh, NSH_BASE) || (nsh.next != NSH_NEXT_V4 && nsh.next != NSH_NEXT_V6))
		return drop(skb, DROP_MALFORMED);
	ethertype = bpf_htons(nsh.next == NSH_NEXT_V4 ? ETH_P_IP : ETH_P_IPV6);
	if (bpf_skb_store_bytes(skb, ETH_ALEN, mark, sizeof(mark), 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype), 0))
		return drop(skb, DROP_KERNEL);
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

/* The index that came back is that of the next function: the one that was passed has one more. */
static __noinline int read_nsh(struct __sk_buff *skb, const struct port *port, struct place *place)
{
	__u32 length, word;
	struct nsh nsh;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &nsh, NSH_BASE))
		return WRONG;
	word = bpf_ntohl(nsh.path_and_index);
	place->path = word >> 8;
	length = (bpf_ntohs(nsh.first) & 0x3f) * 4;
	if (bpf_ntohs(nsh.first) & NSH_UNKNOWN || length < NSH_BASE ||
	    (nsh.md_type == NSH_MD_FIXED ? length != NSH_FIXED_LENGTH : nsh.md_type != NSH_MD_VARIABLE))
		return WRONG;
	if (place_of((word & 0xff) + 1, place))
		return BAD_INDEX;
	/* This side is for the other direction. */
	if (!(port->roles & (place->direction == UP ? ROLE_OUTSIDE : ROLE_INSIDE)))
		return WRONG;
	return bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ? WRONG : TOLD;
}

/* The second time. */
static __always_inline int told_by_nsh(struct __sk_buff *skb, const struct port *port, struct place *place)
{
	__u8 source[ETH_ALEN];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)) || source[0] != TAG_FIRST ||
	    source[1] != NSH_SECOND)
		return UNTOLD;
	return read_nsh(skb, port, place);
}

#endif
