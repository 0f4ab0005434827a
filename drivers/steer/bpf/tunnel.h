/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * GRE tunnels (RFC 2784, RFC 2890) without a tunnel device.
 *
 * Out: the kernel routes a packet into the visible end of a veth pair; at the hidden end it gets its outer headers and
 * leaves by the underlay port. In: at the underlay port the outer headers come off, and the packet is received again by
 * the visible end, as from a device: routing, policy rules and captures see it there.
 *
 * Fragments of outer packets are left to the stack, which has nothing to give them to: the outer header says DF.
 */
#ifndef CATENA_TUNNEL_H
#define CATENA_TUNNEL_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "classify.h"
#include "count.h"
#include "packet.h"

#define OUTER_TTL 64

#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
/* RFC 2784 section 2.3: a receiver that knows no more discards what has any of these, or another version. */
#define GRE_UNKNOWN 0x4fff

#define ECN_MASK 3
#define ECN_CE 3

struct gre {
	__be16 flags;
	__be16 protocol;
};

struct outer {
	struct iphdr ip;
	struct gre gre;
	__be32 key;
};

struct inner {
	__be32 source[4];
	__be32 destination[4];
	__u8 family;
	/* DSCP and ECN */
	__u8 tos;
};

static __always_inline int read_inner(struct __sk_buff *skb, __u32 at, __be16 protocol, struct inner *inner)
{
	if (protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4)
			return -1;
		inner->family = 4;
		inner->tos = ip.tos;
		map_v4(inner->source, ip.saddr);
		map_v4(inner->destination, ip.daddr);
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		inner->family = 6;
		inner->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
		__builtin_memcpy(inner->source, &ip.saddr, sizeof(inner->source));
		__builtin_memcpy(inner->destination, &ip.daddr, sizeof(inner->destination));
	}
	return 0;
}

/* Marks the packet behind the Ethernet header as having met congestion. */
static __always_inline int set_congestion(struct __sk_buff *skb, const struct inner *inner)
{
	if (inner->family == 4) {
		__u8 tos = inner->tos | ECN_CE;
		__u32 at = ETH_HLEN + offsetof(struct iphdr, tos);

		if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), bpf_htons(inner->tos),
					bpf_htons(tos), 2))
			return -1;
		return bpf_skb_store_bytes(skb, at, &tos, sizeof(tos), 0);
	}
	__u8 second;

	if (bpf_skb_load_bytes(skb, ETH_HLEN + 1, &second, sizeof(second)))
		return -1;
	second |= ECN_CE << 4;
	return bpf_skb_store_bytes(skb, ETH_HLEN + 1, &second, sizeof(second), 0);
}

/* Where the GRE header's fields put the payload, and the key, if it is a header that we take. */
static __always_inline int read_gre(struct __sk_buff *skb, __u32 at, struct tunnel_end *end, __be16 *protocol)
{
	struct gre gre;
	__u16 flags;
	__u32 length = sizeof(gre);
	__be32 key;

	if (bpf_skb_load_bytes(skb, at, &gre, sizeof(gre)))
		return -1;
	flags = bpf_ntohs(gre.flags);
	if (flags & GRE_UNKNOWN)
		return -1;
	if (gre.protocol != bpf_htons(ETH_P_IP) && gre.protocol != bpf_htons(ETH_P_IPV6))
		return -1;
	*protocol = gre.protocol;
	if (flags & GRE_CHECKSUM)
		length += 4;
	if (flags & GRE_KEY) {
		if (bpf_skb_load_bytes(skb, at + length, &key, sizeof(key)))
			return -1;
		end->key = bpf_ntohl(key);
		end->has_key = 1;
		length += 4;
	}
	if (flags & GRE_SEQUENCE)
		length += 4;
	return length;
}

/* At an underlay port: takes a packet out of the tunnel that it came through; NEXT if it is of none. */
static __noinline int decapsulate(struct __sk_buff *skb)
{
	struct tunnel_end end = {};
	struct inner inner = {};
	struct element *element;
	struct iphdr ip;
	__u32 zero = 0, site, length, *found;
	__be16 protocol;
	int gre;

	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return NEXT;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    ip.protocol != IPPROTO_GRE || ip.frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
		return NEXT;
	length = ip.ihl * 4;
	gre = read_gre(skb, ETH_HLEN + length, &end, &protocol);
	if (gre < 0)
		return NEXT;
	length += gre;
	end.local = ip.daddr;
	end.remote = ip.saddr;
	found = bpf_map_lookup_elem(&tunnel_ends, &end);
	if (!found)
		return bpf_map_lookup_elem(&tunnel_locals, &end.local) ? drop(skb, DROP_UNKNOWN_TUNNEL) : NEXT;
	site = *found;

	if (read_inner(skb, ETH_HLEN + length, protocol, &inner))
		return drop(skb, DROP_MALFORMED);
	found = longest_prefix(&allowed4, &allowed6, inner.family, inner.source);
	if (!found || *found != site)
		return drop(skb, DROP_FORGED_SOURCE);
	/* RFC 6040 section 4.2: a packet that met congestion and cannot say so is dropped. */
	if ((ip.tos & ECN_MASK) == ECN_CE && !(inner.tos & ECN_MASK))
		return drop(skb, DROP_KERNEL);

	element = bpf_map_lookup_elem(&elements, &zero);
	if (!element || !element->tunnels)
		return drop(skb, DROP_MISSING);
	if (bpf_skb_adjust_room(skb, -(__s32)length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), element->tunnels_mac, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &protocol, sizeof(protocol), 0))
		return drop(skb, DROP_KERNEL);
	if ((ip.tos & ECN_MASK) == ECN_CE && (inner.tos & ECN_MASK) != ECN_CE && set_congestion(skb, &inner))
		return drop(skb, DROP_KERNEL);
	count(skb, COUNT_DECAPSULATED, 0, 0, site, 0);
	/* Received by the visible end, which reads the protocol from the Ethernet header anew. */
	return bpf_redirect(element->tunnels, BPF_F_INGRESS);
}

/* The length of the IP packet, or of each of those that a super-frame becomes. */
static __always_inline __u32 packet_length(struct __sk_buff *skb)
{
	struct header header = {};
	__u8 offset;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	header.family = skb->protocol == bpf_htons(ETH_P_IP) ? 4 : 6;
	if (read_header(skb, ETH_HLEN, &header))
		return skb->len - ETH_HLEN;
	if (header.tuple.protocol != IPPROTO_TCP)
		return header.payload - ETH_HLEN + 8 + skb->gso_size;
	if (bpf_skb_load_bytes(skb, header.payload + 12, &offset, sizeof(offset)))
		return skb->len - ETH_HLEN;
	return header.payload - ETH_HLEN + (offset >> 4) * 4 + skb->gso_size;
}

static __always_inline __u16 header_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const __u16 *)ip;
	__u32 sum = 0;

	for (int i = 0; i < (int)sizeof(*ip) / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* At the hidden end: puts a packet into the tunnel that leads to its destination. */
static __always_inline int encapsulate(struct __sk_buff *skb)
{
	struct outer outer = {};
	struct inner inner = {};
	struct tunnel *tunnel;
	__be16 ethertype = bpf_htons(ETH_P_IP);
	__be16 protocol = skb->protocol;
	__u32 site, *found, overhead, length, mtu = 0;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE;

	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return NEXT;
	if (read_inner(skb, ETH_HLEN, protocol, &inner))
		return drop(skb, DROP_MALFORMED);
	if (is_for_neighbours(inner.family, inner.destination))
		return NEXT;
	found = longest_prefix(&allowed4, &allowed6, inner.family, inner.destination);
	if (!found)
		return drop(skb, DROP_NO_TUNNEL);
	site = *found;
	tunnel = bpf_map_lookup_elem(&tunnels, &site);
	if (!tunnel)
		return drop(skb, DROP_NO_TUNNEL);

	overhead = sizeof(outer) - (tunnel->has_key ? 0 : sizeof(outer.key));
	length = packet_length(skb);
	if (bpf_check_mtu(skb, tunnel->underlay, &mtu, 0, 0) < 0)
		return drop(skb, DROP_MISSING);
	if (length > tunnel->mtu || length + overhead > mtu)
		return drop(skb, DROP_TOO_BIG);

	count(skb, COUNT_ENCAPSULATED, 0, 0, site, 0);
	outer.ip.version = 4;
	outer.ip.ihl = 5;
	/* RFC 6040 section 4.1, normal mode. */
	outer.ip.tos = inner.tos;
	outer.ip.tot_len = bpf_htons(skb->len - ETH_HLEN + overhead);
	outer.ip.id = bpf_get_prandom_u32();
	outer.ip.frag_off = bpf_htons(0x4000);
	outer.ip.ttl = OUTER_TTL;
	outer.ip.protocol = IPPROTO_GRE;
	outer.ip.saddr = tunnel->local;
	outer.ip.daddr = tunnel->remote;
	outer.ip.check = header_checksum(&outer.ip);
	outer.gre.flags = tunnel->has_key ? bpf_htons(GRE_KEY) : 0;
	outer.gre.protocol = protocol;
	outer.key = bpf_htonl(tunnel->key);
	skb->mark &= ~tunnel->mark;

	if (bpf_skb_adjust_room(skb, overhead, BPF_ADJ_ROOM_MAC, flags))
		return drop(skb, DROP_KERNEL);
	if (tunnel->has_key) {
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0))
			return drop(skb, DROP_KERNEL);
	} else if (bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer) - sizeof(outer.key), 0)) {
		return drop(skb, DROP_KERNEL);
	}
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype), 0))
		return drop(skb, DROP_KERNEL);
	return bpf_redirect_neigh(tunnel->underlay, NULL, 0, 0);
}

#endif
