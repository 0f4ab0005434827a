/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Reading a packet: which flow is it of?
 *
 * Most packets are plain: TCP or UDP, whole, without options. They are read straight from memory. All others take the
 * careful way, by bpf_skb_load_bytes: it finds its way in paged skbs, and bounds need no proof.
 *
 * Two kinds of packets do not say it themselves. An ICMP error is of the flow inside it, in the other direction. A later
 * fragment has no ports: it is of the flow of its first fragment, which is remembered for it. All else in the engine
 * sees only the answer, so that neither kind is a case of its own elsewhere.
 */
#ifndef CATENA_PACKET_H
#define CATENA_PACKET_H

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "address.h"
#include "layout.h"
#include "maps.h"

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif
#define PROTO_HOP_BY_HOP 0
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_DESTINATION 60
/* RFC 8200 section 4.1 recommends five at most, with destination options twice. */
#define MAX_EXTENSION_HEADERS 6

#define FRAGMENT_OFFSET 0x1fff
#define MORE_FRAGMENTS 0x2000
#define DONT_FRAGMENT 0x4000

#define VLAN_VID 0x0fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

enum parsed {
	/* An IP packet that steering can be asked about. */
	PARSED,
	/* Not IP, or a matter between neighbours: the stack's. */
	PARSED_OTHER,
	/* Lengths that contradict each other; the stack would drop it too. */
	PARSED_MALFORMED,
};

/* Why the ports of a packet are not known, if they are not. */
enum unknown {
	KNOWN,
	/* A later fragment, and the first one has not been seen. */
	UNKNOWN_FRAGMENT,
	/* The packet ends before them (RFC 1858 section 3 tells who does that). */
	UNKNOWN_CUT_SHORT,
};

struct packet {
	/* In the direction in which the packet goes. */
	struct tuple tuple;
	/* 4 or 6 */
	__u8 family;
	__u8 unknown;
	/* 0 for anything but a whole TCP packet. */
	__u8 tcp_flags;
	/* Tells of another packet, does not belong to the flow itself. */
	__u8 error;
	/* A matter between neighbours, if the destination is one. */
	__u8 discovery;
	/* A part of a packet: what its ports are, or those of the first part that we saw, proves nothing of the others. */
	__u8 fragment;
	__u8 dscp;
	__u8 pad[2];
	/* See fragment_key. */
	__u32 scope;
};

enum fragment {
	WHOLE,
	FIRST_FRAGMENT,
	LATER_FRAGMENT,
};

/* What the IP header says; ports are not yet in the tuple. */
struct header {
	struct tuple tuple;
	/* Where the payload begins, and where the packet ends, from the beginning of the frame. */
	__u32 payload;
	__u32 end;
	__be32 id;
	__u8 fragment;
	/* More extension headers than we walk: the protocol is not known. */
	__u8 deep;
	__u8 ttl;
	__u8 family;
	/* DSCP and ECN */
	__u8 tos;
	__u8 pad[3];
	__u32 scope;
};

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline void reverse(struct tuple *to, const struct tuple *from)
{
	__builtin_memcpy(to->source, from->destination, sizeof(to->source));
	__builtin_memcpy(to->destination, from->source, sizeof(to->destination));
	to->source_port = from->destination_port;
	to->destination_port = from->source_port;
	to->protocol = from->protocol;
	__builtin_memset(to->pad, 0, sizeof(to->pad));
}

static __always_inline int read_v4(struct __sk_buff *skb, __u32 at, struct header *header)
{
	struct iphdr ip;
	__u16 fragment;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -1;
	map_v4(header->tuple.source, ip.saddr);
	map_v4(header->tuple.destination, ip.daddr);
	header->tuple.protocol = ip.protocol;
	header->ttl = ip.ttl;
	header->tos = ip.tos;
	header->payload = at + ip.ihl * 4;
	/* "BIG TCP" super-frames have length 0. */
	header->end = ip.tot_len || !skb->gso_size ? at + bpf_ntohs(ip.tot_len) : skb->len;
	header->id = ip.id;
	fragment = bpf_ntohs(ip.frag_off);
	if (fragment & FRAGMENT_OFFSET)
		header->fragment = LATER_FRAGMENT;
	else if (fragment & MORE_FRAGMENTS)
		header->fragment = FIRST_FRAGMENT;
	return 0;
}

static __always_inline int read_v6(struct __sk_buff *skb, __u32 at, struct header *header)
{
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
		return -1;
	__builtin_memcpy(header->tuple.source, &ip.saddr, 16);
	__builtin_memcpy(header->tuple.destination, &ip.daddr, 16);
	header->ttl = ip.hop_limit;
	header->tos = ip.priority << 4 | ip.flow_lbl[0] >> 4;
	header->end = ip.payload_len || !skb->gso_size ? at + sizeof(ip) + bpf_ntohs(ip.payload_len) : skb->len;
	next = ip.nexthdr;
	at += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		struct {
			__u8 next;
			__u8 length;
			__be16 fragment;
			__be32 id;
		} extension;

		if (next != PROTO_HOP_BY_HOP && next != PROTO_ROUTING && next != PROTO_DESTINATION &&
		    next != PROTO_FRAGMENT) {
			header->tuple.protocol = next;
			header->payload = at;
			return 0;
		}
		if (header->fragment == LATER_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, at, &extension, sizeof(extension)))
			return -1;
		if (next == PROTO_FRAGMENT) {
			header->id = extension.id;
			/* Offset in units of eight bytes in the upper bits, "more" in the lowest. */
			if (extension.fragment & bpf_htons(0xfff8))
				header->fragment = LATER_FRAGMENT;
			else if (extension.fragment & bpf_htons(1))
				header->fragment = FIRST_FRAGMENT;
			at += 8;
		} else {
			at += (extension.length + 1) * 8;
		}
		next = extension.next;
	}
	header->tuple.protocol = next;
	header->payload = at;
	header->deep = 1;
	return 0;
}

__noinline int read_header(struct __sk_buff *skb, __u32 at, struct header *header)
{
	if (!header)
		return -1;
	return header->family == 4 ? read_v4(skb, at, header) : read_v6(skb, at, header);
}

static __always_inline void fragment_key(const struct header *header, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	__builtin_memcpy(key->source, header->tuple.source, sizeof(key->source));
	__builtin_memcpy(key->destination, header->tuple.destination, sizeof(key->destination));
	key->id = header->id;
	key->scope = header->scope;
	if (header->family == 4)
		key->protocol = header->tuple.protocol;
}

/* Copies, since Linux 6.1 takes the argument of a global function for no value of a map. */
static __noinline int remember(const struct header *header, const struct tuple *tuple)
{
	struct tuple first = *tuple;
	struct fragment_key key;

	fragment_key(header, &key);
	return bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
}

static __always_inline __u8 recall(const struct header *header, struct tuple *tuple)
{
	struct fragment_key key;
	struct tuple *first;

	fragment_key(header, &key);
	first = bpf_map_lookup_elem(&fragments, &key);
	if (!first)
		return UNKNOWN_FRAGMENT;
	*tuple = *first;
	return KNOWN;
}

/* Completes the tuple; `end` is where the packet that we have ends. */
static __noinline __u8 read_ports(struct __sk_buff *skb, struct header *header, __u32 end)
{
	__be16 both[2];

	/* Needs no protocol: what is behind a later fragment's header is not read. */
	if (header->fragment == LATER_FRAGMENT)
		return recall(header, &header->tuple);
	if (header->deep)
		return UNKNOWN_CUT_SHORT;
	if (!has_ports(header->tuple.protocol))
		return KNOWN;
	if (header->payload + sizeof(both) > end ||
	    bpf_skb_load_bytes(skb, header->payload, both, sizeof(both)))
		return UNKNOWN_CUT_SHORT;
	header->tuple.source_port = bpf_ntohs(both[0]);
	header->tuple.destination_port = bpf_ntohs(both[1]);
	return KNOWN;
}

/* Errors have the packet that they are about inside; redirects (ICMP type 5) are between neighbours. */
static __always_inline int is_icmp_error(__u8 family, __u8 type)
{
	if (family == 4)
		return type == 3 || type == 4 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Neighbour and router discovery: with any other hop limit it has been routed, and is not valid (RFC 4861 section 6.1). */
static __always_inline int is_discovery(const struct header *header, __u8 type)
{
	return header->family == 6 && header->ttl == 255 && type >= 133 && type <= 137;
}

static __always_inline int same_address(const __be32 one[4], const __be32 other[4])
{
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

/* Multicast, broadcast, IPv6 link-local: never routed, so never steered. (IPv4 link-local is: Linux routes it.) */
static __always_inline int is_for_neighbours(__u8 family, const __be32 address[4])
{
	__u32 first = bpf_ntohl(family == 4 ? address[3] : address[0]);

	if (family == 4)
		return first >> 28 == 0xe || first == 0xffffffff;
	return first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6;
}

static __always_inline int is_icmp(__u8 family, __u8 protocol)
{
	return protocol == (family == 4 ? IPPROTO_ICMP : PROTO_ICMPV6);
}

/* classify.h */
__noinline __u32 longest_prefix(__u32 space, __u32 family, const struct in6_addr *address);

static __always_inline __u32 prefix_of_site(__u8 family, const __be32 address[4])
{
	return longest_prefix(SPACE_SITES, family, (const struct in6_addr *)address);
}

/*
 * Whether an error is from a site that did not get what it is about, or goes to one from a stranger about what another one
 * got. Then it is not followed: others' policies would be asked instead of the one of him who sends, or gets, it.
 */
static __always_inline int is_of_others(const struct header *outer, const struct header *inner)
{
	__u32 receiver, site = prefix_of_site(outer->family, inner->tuple.destination);
	__u32 sender = prefix_of_site(outer->family, outer->tuple.source);

	if (sender || !site)
		return sender != site;
	receiver = prefix_of_site(outer->family, outer->tuple.destination);
	return receiver && receiver != site;
}

static __always_inline void read_icmp(struct __sk_buff *skb, struct header *outer, struct packet *packet)
{
	struct header inner = { .family = outer->family, .scope = outer->scope };
	__u8 type;

	if (outer->payload + 8 > outer->end || bpf_skb_load_bytes(skb, outer->payload, &type, sizeof(type))) {
		packet->unknown = UNKNOWN_CUT_SHORT;
		return;
	}
	packet->discovery = is_discovery(outer, type);
	if (!is_icmp_error(outer->family, type))
		return;
	/* Not of what pads the frame. */
	if (read_header(skb, outer->payload + 8, &inner) || inner.payload > outer->end) {
		packet->unknown = UNKNOWN_CUT_SHORT;
		return;
	}
	/* An error goes to who sent what it is about (RFC 1122 section 3.2.2). If not, it is of no flow but its own. */
	if (!same_address(inner.tuple.source, outer->tuple.destination))
		return;
	if (is_of_others(outer, &inner))
		return;
	packet->error = 1;
	packet->unknown = read_ports(skb, &inner, outer->end);
	/* What it is about went the other way. */
	reverse(&packet->tuple, &inner.tuple);
}

static __always_inline void read_tcp_flags(struct __sk_buff *skb, const struct header *header, struct packet *packet)
{
	if (header->tuple.protocol == IPPROTO_TCP && header->payload + 14 <= header->end)
		bpf_skb_load_bytes(skb, header->payload + 13, &packet->tcp_flags, 1);
}

/* The careful way. */
__noinline int parse_any(struct __sk_buff *skb, struct packet *packet)
{
	struct header header = {};

	if (!packet)
		return PARSED_MALFORMED;
	header.scope = packet->scope;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		header.family = 4;
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		header.family = 6;
	else
		return PARSED_OTHER;
	if (read_header(skb, ETH_HLEN, &header) || header.end > skb->len || header.payload > header.end)
		return PARSED_MALFORMED;
	if (is_for_neighbours(header.family, header.tuple.destination))
		return PARSED_OTHER;

	packet->family = header.family;
	packet->fragment = header.fragment != WHOLE;
	packet->dscp = header.tos >> 2;
	packet->unknown = read_ports(skb, &header, header.end);
	packet->tuple = header.tuple;
	if (packet->unknown == KNOWN && header.fragment != LATER_FRAGMENT) {
		if (is_icmp(header.family, header.tuple.protocol))
			read_icmp(skb, &header, packet);
		if (header.fragment == FIRST_FRAGMENT && packet->unknown == KNOWN)
			remember(&header, &packet->tuple);
		if (header.fragment == WHOLE)
			read_tcp_flags(skb, &header, packet);
	}
	return PARSED;
}

/* TCP's flags, and whether the segment is long enough to have them. */
static __always_inline int plain_tcp(const void *segment, const void *data_end, struct packet *packet)
{
	const struct tcphdr *tcp = segment;

	if ((const void *)(tcp + 1) > data_end)
		return 0;
	packet->tcp_flags = ((const __u8 *)segment)[13];
	return 1;
}

/*
 * Reads a whole TCP or UDP packet without options or extension headers, whose headers are in one piece. Says no to any
 * other, and to whatever it would have to think about.
 */
static __always_inline int parse_plain(struct __sk_buff *skb, struct packet *packet)
{
	const void *data = (const void *)(long)skb->data, *data_end = (const void *)(long)skb->data_end;
	const struct ethhdr *ethernet = data;
	const __be16 *both;
	__u32 length;

	if ((const void *)(ethernet + 1) > data_end)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		const struct iphdr *ip = (const void *)(ethernet + 1);

		if ((const void *)(ip + 1) + 8 > data_end || *(const __u8 *)ip != 0x45 ||
		    ip->frag_off & bpf_htons(FRAGMENT_OFFSET | MORE_FRAGMENTS))
			return 0;
		length = bpf_ntohs(ip->tot_len);
		if (length < sizeof(*ip) + 20 && (ip->protocol != IPPROTO_UDP || length < sizeof(*ip) + 8))
			return 0;
		map_v4(packet->tuple.source, ip->saddr);
		map_v4(packet->tuple.destination, ip->daddr);
		packet->family = 4;
		packet->tuple.protocol = ip->protocol;
		packet->dscp = ip->tos >> 2;
		/* Multicast and broadcast. */
		if (bpf_ntohl(ip->daddr) >> 29 == 7)
			return 0;
		both = (const void *)(ip + 1);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip = (const void *)(ethernet + 1);

		if ((const void *)(ip + 1) + 8 > data_end || ip->version != 6)
			return 0;
		length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		if (length < sizeof(*ip) + 20 && (ip->nexthdr != IPPROTO_UDP || length < sizeof(*ip) + 8))
			return 0;
		__builtin_memcpy(packet->tuple.source, &ip->saddr, 16);
		__builtin_memcpy(packet->tuple.destination, &ip->daddr, 16);
		packet->family = 6;
		packet->tuple.protocol = ip->nexthdr;
		packet->dscp = (ip->priority << 4 | ip->flow_lbl[0] >> 4) >> 2;
		if (is_for_neighbours(6, packet->tuple.destination))
			return 0;
		both = (const void *)(ip + 1);
	} else {
		return 0;
	}
	if (ETH_HLEN + length > skb->len)
		return 0;
	if (packet->tuple.protocol == IPPROTO_TCP) {
		if (!plain_tcp(both, data_end, packet))
			return 0;
	} else if (packet->tuple.protocol != IPPROTO_UDP) {
		return 0;
	}
	packet->tuple.source_port = bpf_ntohs(both[0]);
	packet->tuple.destination_port = bpf_ntohs(both[1]);
	return 1;
}

/* `packet` is zero but for its scope. */
static __always_inline enum parsed parse(struct __sk_buff *skb, struct packet *packet)
{
	/* A priority tag (VID 0) is no network: the stack takes it off and routes what is behind it. */
	if (skb->vlan_present && skb->vlan_tci & VLAN_VID)
		return PARSED_OTHER;
	if (parse_plain(skb, packet))
		return PARSED;
	packet->tcp_flags = 0;
	__builtin_memset(&packet->tuple, 0, sizeof(packet->tuple));
	return parse_any(skb, packet);
}

#endif
