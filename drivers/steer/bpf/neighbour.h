/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The MAC addresses of neighbours that we send to, heard from the answers that the kernel gets: ARP (RFC 826) and neighbour
 * discovery (RFC 4861). The frames go on to the kernel, which is who asked.
 *
 * Believed is only what is addressed to us as an answer, at the port where the neighbour is. All else that contradicts what was
 * heard (a gratuitous ARP, an unsolicited advertisement, a question from another address) makes us forget: then packets go the
 * kernel's way until it has asked again. What the kernel was told for good (`ip neighbour ... nud permanent`) nobody contradicts.
 */
#ifndef CATENA_NEIGHBOUR_H
#define CATENA_NEIGHBOUR_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "layout.h"
#include "map.h"

#define ARP_REPLY 2
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
/* Flags of an advertisement (RFC 4861 section 4.4). */
#define SOLICITED (1U << 30)
#define OVERRIDE (1U << 29)
#define SOURCE_LINK_LAYER 1
#define TARGET_LINK_LAYER 2

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
};

/* Behind an IPv6 header: the ICMPv6 header, an address, and the first option. */
struct discovery {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__be32 target[4];
	__u8 option;
	__u8 option_length;
	__u8 mac[ETH_ALEN];
};

/* By port and address: the MAC address, 0 where it was not heard yet. Who wants to know one makes the entry. */
MAP(neighbours, BPF_MAP_TYPE_HASH, struct neighbour_key, __u64, 4096, BPF_F_NO_PREALLOC);

/* What a frame says about a neighbour's address, and what it is worth. */
enum word {
	/* An answer to what the kernel asked. */
	ANSWER,
	/* The same, which does not stand against another address (an advertisement without the override flag). */
	WEAK_ANSWER,
	/* What nobody asked for. */
	RUMOUR,
};

/* Keeps what somebody wanted to know. */
static __always_inline void hear(const struct neighbour_key *key, const __u8 mac[ETH_ALEN], enum word word)
{
	__u64 heard = HEARD, *known = bpf_map_lookup_elem(&neighbours, key);

	__builtin_memcpy(&heard, mac, ETH_ALEN);
	if (!known || *known & PERMANENT || *known == heard)
		return;
	if (word == ANSWER || (word == WEAK_ANSWER && !*known))
		*known = heard;
	else if (word == RUMOUR)
		*known = 0;
}

__noinline int listen_to_arp(struct __sk_buff *skb)
{
	struct neighbour_key key = { .ifindex = skb->ifindex };
	struct arp_packet arp;
	__be32 sender;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) || arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.hardware_length != ETH_ALEN || arp.protocol_length != sizeof(sender))
		return 0;
	__builtin_memcpy(&sender, arp.sender, sizeof(sender));
	map_v4(key.address, sender);
	hear(&key, arp.sender_mac,
	     skb->pkt_type == PACKET_HOST && arp.operation == bpf_htons(ARP_REPLY) ? ANSWER : RUMOUR);
	return 0;
}

/* RFC 4861 section 7.2.5. An advertisement to all nodes answers nobody (section 7.1.2). */
static __always_inline enum word worth(const struct __sk_buff *skb, __u32 flags)
{
	if (!(flags & SOLICITED) || skb->pkt_type != PACKET_HOST)
		return RUMOUR;
	return flags & OVERRIDE ? ANSWER : WEAK_ANSWER;
}

__noinline int listen_to_discovery(struct __sk_buff *skb)
{
	struct neighbour_key key = { .ifindex = skb->ifindex };
	struct {
		struct ipv6hdr ip;
		struct discovery message;
	} packet;
	enum word word = RUMOUR;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &packet, sizeof(packet)) || packet.ip.nexthdr != PROTO_ICMPV6 ||
	    packet.ip.hop_limit != 255 || packet.message.code || packet.message.option_length != 1)
		return 0;
	if (packet.message.type == NEIGHBOUR_ADVERTISEMENT && packet.message.option == TARGET_LINK_LAYER) {
		__builtin_memcpy(key.address, packet.message.target, sizeof(key.address));
		word = worth(skb, bpf_ntohl(packet.message.flags));
	} else if (packet.message.type == NEIGHBOUR_SOLICITATION && packet.message.option == SOURCE_LINK_LAYER)
		__builtin_memcpy(key.address, &packet.ip.saddr, sizeof(key.address));
	else
		return 0;
	hear(&key, packet.message.mac, word);
	return 0;
}

/* Frames for others (flooded, mirrored) tell nothing. */
static __always_inline void listen(struct __sk_buff *skb)
{
	if (skb->pkt_type == PACKET_OTHERHOST)
		return;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		listen_to_arp(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		listen_to_discovery(skb);
}

#endif
