/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The MAC addresses of neighbours that we send to, heard from the answers that the kernel gets: ARP (RFC 826) and neighbour
 * discovery (RFC 4861). The frames go on to the kernel, which is who asked. It believes them as we do.
 */
#ifndef CATENA_NEIGHBOUR_H
#define CATENA_NEIGHBOUR_H

#include <linux/if_ether.h>

#include "packet.h"

#define ARP_REPLY 2
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
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

/* Keeps what somebody wanted to know. */
static __always_inline void hear(const struct neighbour_key *key, const __u8 mac[ETH_ALEN])
{
	__u64 heard = HEARD, *known = bpf_map_lookup_elem(&neighbours, key);

	__builtin_memcpy(&heard, mac, ETH_ALEN);
	if (known && *known != heard)
		*known = heard;
}

__noinline int listen_to_arp(struct __sk_buff *skb)
{
	struct neighbour_key key = { .ifindex = skb->ifindex };
	struct arp_packet arp;
	__be32 sender;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) || arp.operation != bpf_htons(ARP_REPLY) ||
	    arp.protocol != bpf_htons(ETH_P_IP) ||
	    arp.hardware_length != ETH_ALEN || arp.protocol_length != sizeof(sender))
		return 0;
	__builtin_memcpy(&sender, arp.sender, sizeof(sender));
	map_v4(key.address, sender);
	hear(&key, arp.sender_mac);
	return 0;
}

__noinline int listen_to_discovery(struct __sk_buff *skb)
{
	struct neighbour_key key = { .ifindex = skb->ifindex };
	struct {
		struct ipv6hdr ip;
		struct discovery message;
	} packet;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &packet, sizeof(packet)) || packet.ip.nexthdr != PROTO_ICMPV6 ||
	    packet.ip.hop_limit != 255 || packet.message.option_length != 1)
		return 0;
	if (packet.message.type == NEIGHBOUR_ADVERTISEMENT && packet.message.option == TARGET_LINK_LAYER)
		__builtin_memcpy(key.address, packet.message.target, sizeof(key.address));
	else if (packet.message.type == NEIGHBOUR_SOLICITATION && packet.message.option == SOURCE_LINK_LAYER)
		__builtin_memcpy(key.address, &packet.ip.saddr, sizeof(key.address));
	else
		return 0;
	hear(&key, packet.message.mac);
	return 0;
}

static __always_inline void listen(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		listen_to_arp(skb);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		listen_to_discovery(skb);
}

#endif
