/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * GRE tunnels (RFC 2784, RFC 2890) without a tunnel device.
 *
 * Out: the kernel routes a packet into the visible end of a veth pair; at the hidden end it gets its outer headers and
 * leaves by the underlay port. In: at the underlay port the outer headers come off, and the packet is received again by
 * the visible end, as from a device: routing, policy rules and captures see it there.
 *
 * What does not fit the underlay with its outer headers is too long for the visible end already, where the kernel tells its
 * sender; or else, if the tunnels of the element are to cut it, it goes the slow way: with DF clear, to the element's own
 * stack, which forwards it, and cuts it into fragments on the way out (RFC 4459 section 3.1). Everything else says DF.
 *
 * Fragments that come in are dropped: we cannot put them together, and the stack would have nothing to give the whole to.
 *
 * Between both ends MAC addresses have nothing to say, so they say which site's tunnel it is: 02:c5, then the site. The source
 * does of what has come out, and the destination of what has passed a path and is to go in.
 */
#ifndef CATENA_TUNNEL_H
#define CATENA_TUNNEL_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "classify.h"
#include "count.h"
#include "packet.h"
#include "send.h"

#define SITE_SECOND 0xc5

#define OUTER_TTL 64

#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
/* RFC 2784 section 2.3: a receiver that knows no more discards what has any of these, or another version. */
#define GRE_UNKNOWN 0x4fff

#define ECN_MASK 3
#define ECN_CE 3

#define MAX_PACKET 65535

/* RFC 8200 section 4.2: what a node that does not know an option does. Anything but skipping it is for the stack. */
#define OPTION_PAD1 0
#define OPTION_ACTION 0xc0
#define OPTION_ENCAPSULATION_LIMIT 4
/* Those that ip6gre writes are two (RFC 2473 section 5.1). */
#define MAX_OPTIONS 8

struct gre {
	__be16 flags;
	__be16 protocol;
};

/* Room for the longer of both. */
struct outer4 {
	struct iphdr ip;
	struct gre gre;
	__be32 key;
};

struct outer6 {
	struct ipv6hdr ip;
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

/* What the outer header says. */
struct arrival {
	struct tunnel_end end;
	/* Of the outer headers in all. */
	__u32 length;
	__be16 protocol;
	__u8 ecn;
	/* A part of what may have been a GRE packet: there is nothing else to read. */
	__u8 is_fragment;
};

/* How long destination options are of which none is for us to act on; -1 for others, and for those that are too many. */
static __always_inline int read_options(struct __sk_buff *skb, __u32 at, __u8 *next)
{
	struct {
		__u8 type;
		__u8 length;
	} option;
	__u32 end, from = at;

	if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)))
		return -1;
	*next = option.type;
	end = at + (option.length + 1) * 8;
	at += sizeof(option);
	for (int i = 0; i < MAX_OPTIONS && at < end; i++) {
		if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)) || option.type & OPTION_ACTION)
			return -1;
		at += option.type == OPTION_PAD1 ? 1 : sizeof(option) + option.length;
	}
	return at == end ? (int)(end - from) : -1;
}

/* Of an IPv6 header and what stands between it and GRE: the encapsulation limit, or the sign of a fragment. */
static __always_inline int read_outer6(struct __sk_buff *skb, struct arrival *arrival)
{
	struct ipv6hdr ip;
	__u8 next;
	int options;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return -1;
	__builtin_memcpy(arrival->end.local, &ip.daddr, sizeof(arrival->end.local));
	__builtin_memcpy(arrival->end.remote, &ip.saddr, sizeof(arrival->end.remote));
	arrival->length = sizeof(ip);
	arrival->ecn = ip.flow_lbl[0] >> 4 & ECN_MASK;
	next = ip.nexthdr;
	if (next == PROTO_FRAGMENT) {
		arrival->is_fragment = 1;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(ip), &next, sizeof(next)))
			return -1;
		return next == IPPROTO_GRE || next == PROTO_DESTINATION ? 0 : -1;
	}
	if (next == PROTO_DESTINATION) {
		options = read_options(skb, ETH_HLEN + sizeof(ip), &next);
		if (options < 0)
			return -1;
		arrival->length += options;
	}
	return next == IPPROTO_GRE ? 0 : -1;
}

static __always_inline int read_outer4(struct __sk_buff *skb, struct arrival *arrival)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 || ip.protocol != IPPROTO_GRE)
		return -1;
	map_v4(arrival->end.local, ip.daddr);
	map_v4(arrival->end.remote, ip.saddr);
	arrival->length = ip.ihl * 4;
	arrival->ecn = ip.tos & ECN_MASK;
	arrival->is_fragment = !!(ip.frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS));
	return 0;
}

/* Reads the outer headers; -1 if the packet is no GRE packet of a kind that we take. */
static __noinline int read_outer(struct __sk_buff *skb, struct arrival *arrival)
{
	int gre;

	if (skb->vlan_present)
		return -1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (read_outer4(skb, arrival))
			return -1;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || read_outer6(skb, arrival)) {
		return -1;
	}
	if (arrival->is_fragment)
		return 0;
	gre = read_gre(skb, ETH_HLEN + arrival->length, &arrival->end, &arrival->protocol);
	if (gre < 0)
		return -1;
	arrival->length += gre;
	return 0;
}

/* Whether a packet's addresses are those of what lies at the far end of a site's tunnel. */
static __always_inline int is_behind(__u32 site, __u8 family, const __be32 address[4])
{
	return longest_prefix(SPACE_ALLOWED, family, (const struct in6_addr *)address) == site;
}

/*
 * The kernel takes no headers off if less is left than one of the outer version: a short IPv4 packet in IPv6 is padded. How
 * long it is it says itself.
 */
static __always_inline long lengthen(struct __sk_buff *skb, __u32 inner)
{
	__u32 least = inner + sizeof(struct ipv6hdr);

	if (skb->protocol != bpf_htons(ETH_P_IPV6) || skb->len >= least)
		return 0;
	return bpf_skb_change_tail(skb, least, 0);
}

/* At an underlay port: takes a packet out of the tunnel that it came through; NEXT if it is of none. */
__noinline int decapsulate(struct __sk_buff *skb)
{
	struct arrival arrival = {};
	struct inner inner = {};
	struct element *element;
	__u32 zero = 0, site, *found;
	__u8 source[ETH_ALEN] = { TAG_FIRST, SITE_SECOND };

	if (read_outer(skb, &arrival))
		return NEXT;
	if (arrival.is_fragment)
		return bpf_map_lookup_elem(&tunnel_locals, arrival.end.local) ? drop(skb, DROP_FRAGMENT) : NEXT;
	found = bpf_map_lookup_elem(&tunnel_ends, &arrival.end);
	if (!found)
		return bpf_map_lookup_elem(&tunnel_locals, arrival.end.local) ? drop(skb, DROP_UNKNOWN_TUNNEL) : NEXT;
	site = *found;
	if (read_inner(skb, ETH_HLEN + arrival.length, arrival.protocol, &inner))
		return drop(skb, DROP_MALFORMED);
	if (!is_behind(site, inner.family, inner.source))
		return drop(skb, DROP_FORGED_SOURCE);
	/* RFC 6040 section 4.2: a packet that met congestion and cannot say so is dropped. */
	if (arrival.ecn == ECN_CE && !(inner.tos & ECN_MASK))
		return drop(skb, DROP_CONGESTION);

	element = bpf_map_lookup_elem(&elements, &zero);
	if (!element || !element->tunnels)
		return drop(skb, DROP_MISSING);
	__builtin_memcpy(source + 2, &site, sizeof(site));
	if (lengthen(skb, ETH_HLEN + arrival.length) ||
	    bpf_skb_adjust_room(skb, -(__s32)arrival.length, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), element->tunnels_mac, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), source, ETH_ALEN, 0) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &arrival.protocol, sizeof(arrival.protocol), 0))
		return drop(skb, DROP_KERNEL);
	if (arrival.ecn == ECN_CE && (inner.tos & ECN_MASK) != ECN_CE && set_congestion(skb, &inner))
		return drop(skb, DROP_KERNEL);
	count(skb, COUNT_DECAPSULATED, 0, 0, site, 0);
	/* Received by the visible end, which reads the protocol from the Ethernet header anew. */
	return bpf_redirect(element->tunnels, BPF_F_INGRESS);
}

/* The site that a MAC address in the frame names, as we wrote it; else 0. */
static __always_inline __u32 named_site(struct __sk_buff *skb, __u32 at)
{
	__u8 mac[ETH_ALEN];
	__u32 site;

	if (bpf_skb_load_bytes(skb, at, mac, sizeof(mac)) || mac[0] != TAG_FIRST || mac[1] != SITE_SECOND)
		return 0;
	__builtin_memcpy(&site, mac + 2, sizeof(site));
	return site;
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

/*
 * The identification of a packet that may be cut, which none of the same addresses and protocol has had lately (RFC 6864
 * section 4.3). Takes one for each of those that a super-frame becomes: the kernel counts on from the first.
 */
static __always_inline __be16 identify(const struct __sk_buff *skb, const struct tunnel *tunnel)
{
	__u32 at = (tunnel->local[3] ^ tunnel->remote[3]) % IDENTIFICATIONS;
	__u32 *next = bpf_map_lookup_elem(&identifications, &at);

	return next ? bpf_htons(__sync_fetch_and_add(next, skb->gso_segs > 1 ? skb->gso_segs : 1)) : 0;
}

/* Outer headers before a packet, with DF unless it is to be cut. */
static __noinline long write_outer4(struct __sk_buff *skb, const struct tunnel *tunnel, __u8 tos, __be16 protocol, int is_cut)
{
	struct outer4 outer = {};
	__u32 length = sizeof(outer) - (tunnel->has_key ? 0 : sizeof(outer.key));
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE;

	outer.ip.version = 4;
	outer.ip.ihl = 5;
	/* RFC 6040 section 4.1, normal mode. */
	outer.ip.tos = tos;
	outer.ip.tot_len = bpf_htons(skb->len - ETH_HLEN + length);
	outer.ip.id = is_cut ? identify(skb, tunnel) : bpf_get_prandom_u32();
	outer.ip.frag_off = is_cut ? 0 : bpf_htons(DONT_FRAGMENT);
	/* The stack takes one off. */
	outer.ip.ttl = OUTER_TTL + is_cut;
	outer.ip.protocol = IPPROTO_GRE;
	outer.ip.saddr = tunnel->local[3];
	outer.ip.daddr = tunnel->remote[3];
	outer.ip.check = header_checksum(&outer.ip);
	outer.gre.flags = tunnel->has_key ? bpf_htons(GRE_KEY) : 0;
	outer.gre.protocol = protocol;
	outer.key = bpf_htonl(tunnel->key);
	if (bpf_skb_adjust_room(skb, length, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	/* The verifier wants to see a constant. */
	return tunnel->has_key ? bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0)
			       : bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer) - sizeof(outer.key), 0);
}

/* RFC 7676: GRE over IPv6, without an encapsulation limit. */
static __noinline long write_outer6(struct __sk_buff *skb, const struct tunnel *tunnel, __u8 tos, __be16 protocol)
{
	struct outer6 outer = {};
	__u32 length = sizeof(outer) - (tunnel->has_key ? 0 : sizeof(outer.key));
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE;

	outer.ip.version = 6;
	outer.ip.priority = tos >> 4;
	outer.ip.flow_lbl[0] = tos << 4;
	outer.ip.payload_len = bpf_htons(skb->len - ETH_HLEN + length - sizeof(outer.ip));
	outer.ip.nexthdr = IPPROTO_GRE;
	outer.ip.hop_limit = OUTER_TTL;
	__builtin_memcpy(&outer.ip.saddr, tunnel->local, sizeof(outer.ip.saddr));
	__builtin_memcpy(&outer.ip.daddr, tunnel->remote, sizeof(outer.ip.daddr));
	outer.gre.flags = tunnel->has_key ? bpf_htons(GRE_KEY) : 0;
	outer.gre.protocol = protocol;
	outer.key = bpf_htonl(tunnel->key);
	if (bpf_skb_adjust_room(skb, length, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	return tunnel->has_key ? bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer), 0)
			       : bpf_skb_store_bytes(skb, ETH_HLEN, &outer, sizeof(outer) - sizeof(outer.key), 0);
}

/* What is too long for the underlay, as one of the element's own stack to forward: that cuts it. */
static __always_inline int leave_to_stack(struct __sk_buff *skb, __u32 path)
{
	/* PACKET_HOST is 0. */
	return bpf_skb_change_type(skb, 0) ? drop_on(skb, path, DROP_KERNEL) : NEXT;
}

/* Puts a packet into the tunnel of a site. */
__noinline int encapsulate_for(struct __sk_buff *skb, __u32 site, __u32 path)
{
	struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &site);
	__be16 protocol = skb->protocol, ethertype;
	__u32 overhead, length, mtu = 0;
	struct inner inner = {};
	int is_cut;
	long error;

	if (!tunnel)
		return drop_on(skb, path, DROP_NO_TUNNEL);
	if (read_inner(skb, ETH_HLEN, protocol, &inner))
		return drop_on(skb, path, DROP_MALFORMED);
	overhead = (tunnel->family == 4 ? sizeof(struct outer4) : sizeof(struct outer6)) - (tunnel->has_key ? 0 : 4);
	length = packet_length(skb);
	if (bpf_check_mtu(skb, tunnel->underlay, &mtu, 0, 0) < 0)
		return drop_on(skb, path, DROP_MISSING);
	is_cut = length > tunnel->mtu || length + overhead > mtu;
	/* Who forwards it reads how long it is, of a super-frame too. */
	if (is_cut && (tunnel->oversize != CUT_OUTER || skb->len - ETH_HLEN + overhead > MAX_PACKET))
		return drop_on(skb, path, DROP_TOO_BIG);

	count(skb, COUNT_ENCAPSULATED, 0, 0, site, 0);
	skb->mark &= ~tunnel->mark;
	ethertype = bpf_htons(tunnel->family == 4 ? ETH_P_IP : ETH_P_IPV6);
	error = tunnel->family == 4 ? write_outer4(skb, tunnel, inner.tos, protocol, is_cut)
				    : write_outer6(skb, tunnel, inner.tos, protocol);
	if (error || bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype), 0))
		return drop_on(skb, path, DROP_KERNEL);
	return is_cut ? leave_to_stack(skb, path) : bpf_redirect_neigh(tunnel->underlay, NULL, 0, 0);
}

/* Out at the end of a path into its site's tunnel, by way of the visible end: the addresses say which. */
static __always_inline int send_to_tunnel(struct __sk_buff *skb, __u32 path, __u32 site, const struct side *side)
{
	__u8 destination[ETH_ALEN] = { TAG_FIRST, SITE_SECOND };
	int misfits = does_not_fit(skb, side->ifindex);

	if (misfits)
		return refuse(skb, path, misfits);
	__builtin_memcpy(destination + 2, &site, sizeof(site));
	if (bpf_skb_store_bytes(skb, 0, destination, sizeof(destination), 0))
		return drop_on(skb, path, DROP_KERNEL);
	return bpf_redirect(side->ifindex, 0);
}

/* At the hidden end: puts a packet into the tunnel that its address names, or else that leads to its destination. */
static __always_inline int encapsulate(struct __sk_buff *skb)
{
	struct inner inner = {};
	__u32 site = named_site(skb, 0);

	if (site)
		return encapsulate_for(skb, site, 0);

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return NEXT;
	if (read_inner(skb, ETH_HLEN, skb->protocol, &inner))
		return drop(skb, DROP_MALFORMED);
	if (is_for_neighbours(inner.family, inner.destination))
		return NEXT;
	site = longest_prefix(SPACE_ALLOWED, inner.family, (const struct in6_addr *)inner.destination);
	return site ? encapsulate_for(skb, site, 0) : drop(skb, DROP_NO_TUNNEL);
}

#endif
