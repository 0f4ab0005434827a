/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Telling a sender that a packet does not fit a port, so that it finds the path's MTU: ICMP "fragmentation needed" (RFC 792,
 * RFC 1191) and ICMPv6 "packet too big" (RFC 4443 section 3.2), if the element's settings ask for it.
 *
 * The packet itself becomes the answer, which then goes back through the functions that it has passed, as a reply of its flow:
 * so a stateful function sees the error before the sender does, and where the packet was given another address, the error
 * is given it back. Its source is the address that the packet was sent to. The element need not have one of its own; the
 * functions route that address to where the packet was going, so none of them takes it for forged (RFC 3704); and
 * hosts believe an error by what it quotes, whoever sends it (RFC 1191 section 3, RFC 5927 section 4).
 *
 * There is no limit on how many are sent: an answer is never longer than what it answers, and a sender that is not told loses
 * all that it sends. (Linux exempts both from its own limits, too: icmp_ratemask, icmp6's ratemask.)
 */
#ifndef CATENA_TOOBIG_H
#define CATENA_TOOBIG_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "count.h"
#include "packet.h"

#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4
#define ICMP_REDIRECT 5
#define ICMPV6_TOO_BIG 2

#define IPV6_MINIMUM_MTU 1280

#define ANSWER_TTL 64
/* Precedence "internetwork control" (RFC 1812 section 4.3.2.5). */
#define ANSWER_TOS 0xc0

/* What bpf_csum_diff takes at once. */
#define SUM_AT_ONCE 512

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Not one that names several hosts, or none (RFC 1122 section 3.2.2): those below 1.0.0.0, of loopback, and from 224.0.0.0 on. */
static __always_inline int is_one_host4(__be32 address)
{
	__u32 first = bpf_ntohl(address) >> 24;

	return first && first != 127 && first < 224;
}

/* RFC 4443 section 2.4 (e). */
static __always_inline int is_one_host6(const struct in6_addr *address)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return !is_for_neighbours(6, words) && (words[0] || words[1] || words[2] || bpf_ntohl(words[3]) > 1);
}

/*
 * Puts the answer in the place of the packet. First it is cut off, and is no super-frame any more; then its beginning goes, so
 * far that the kernel no longer means to finish a checksum somewhere in it; then it gets the answer's length.
 */
static __always_inline long replace(struct __sk_buff *skb, const void *answer, __u32 size, __s32 beginning)
{
	if (bpf_skb_change_tail(skb, ETH_HLEN + size, 0) ||
	    bpf_skb_adjust_room(skb, -beginning, BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_change_tail(skb, ETH_HLEN + size, 0))
		return -1;
	return bpf_skb_store_bytes(skb, ETH_HLEN, answer, size, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

__noinline int tell4(struct __sk_buff *skb, __u32 mtu)
{
	__u32 zero = 0;
	struct answer4 *answer = (void *)bpf_map_lookup_elem(&answers, &zero);
	const struct iphdr *about;
	__u32 sum;
	__u8 type;

	if (!answer || bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, sizeof(answer->quote)))
		return -1;
	about = (const void *)answer->quote;
	/* Without DF it is not the sender's to know. */
	if (!(about->frag_off & bpf_htons(DONT_FRAGMENT)) || about->frag_off & bpf_htons(FRAGMENT_OFFSET) ||
	    !is_one_host4(about->saddr))
		return -1;
	/* The mask is for the verifier: at most 15 words. */
	type = answer->quote[(about->ihl & 0xf) * 4];
	if (about->protocol == IPPROTO_ICMP && (is_icmp_error(4, type) || type == ICMP_REDIRECT))
		return -1;

	answer->icmp.type = ICMP_UNREACHABLE;
	answer->icmp.code = ICMP_FRAGMENTATION_NEEDED;
	answer->icmp.checksum = 0;
	answer->icmp.mtu = bpf_htonl(mtu);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&answer->icmp, SUM_AT_ONCE, 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)((__u8 *)&answer->icmp + SUM_AT_ONCE),
			    sizeof(struct icmp) + QUOTE_V4 - SUM_AT_ONCE, sum);
	answer->icmp.checksum = fold(sum);

	__builtin_memset(&answer->ip, 0, sizeof(answer->ip));
	answer->ip.version = 4;
	answer->ip.ihl = 5;
	answer->ip.tos = ANSWER_TOS;
	answer->ip.tot_len = bpf_htons(sizeof(*answer));
	/* Cannot be cut, so its identification says nothing (RFC 6864 section 4.1). */
	answer->ip.frag_off = bpf_htons(DONT_FRAGMENT);
	answer->ip.ttl = ANSWER_TTL;
	answer->ip.protocol = IPPROTO_ICMP;
	answer->ip.saddr = about->daddr;
	answer->ip.daddr = about->saddr;
	answer->ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&answer->ip, sizeof(answer->ip), 0));
	return replace(skb, answer, sizeof(*answer), QUOTE_V4 - sizeof(struct iphdr)) ? -1 : 0;
}

/* Whether a packet is an ICMPv6 error, a redirect, or a later fragment, of which nobody is told. */
static __noinline int is_untellable(struct __sk_buff *skb)
{
	struct header header = { .family = 6 };
	__u8 type = 0;

	if (read_header(skb, ETH_HLEN, &header) || header.fragment == LATER_FRAGMENT || header.deep)
		return 1;
	if (header.tuple.protocol != PROTO_ICMPV6)
		return 0;
	/* Errors have types below 128; 137 is a redirect (RFC 4443 section 2.4 e). */
	return bpf_skb_load_bytes(skb, header.payload, &type, sizeof(type)) || type < 128 || type == 137;
}

__noinline int tell6(struct __sk_buff *skb, __u32 mtu)
{
	__u32 zero = 0;
	struct answer6 *answer = (void *)bpf_map_lookup_elem(&answers, &zero);
	const struct ipv6hdr *about;
	__u8 *icmp;
	__u32 sum;

	/* A port that carries less carries no IPv6: whoever is told that sends no shorter packets (RFC 8201 section 4). */
	if (mtu < IPV6_MINIMUM_MTU || !answer || is_untellable(skb) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, answer->quote, sizeof(answer->quote)))
		return -1;
	about = (const void *)answer->quote;
	if (!is_one_host6(&about->saddr))
		return -1;

	answer->icmp.type = ICMPV6_TOO_BIG;
	answer->icmp.code = 0;
	answer->icmp.checksum = 0;
	answer->icmp.mtu = bpf_htonl(mtu);
	__builtin_memset(&answer->ip, 0, sizeof(answer->ip));
	answer->ip.payload_len = bpf_htons(sizeof(struct icmp) + QUOTE_V6);
	answer->ip.saddr = about->daddr;
	answer->ip.daddr = about->saddr;
	/* The pseudo-header (RFC 8200 section 8.1): both addresses; the length and the protocol, whose sum needs no carry. */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&answer->ip.saddr, 2 * sizeof(struct in6_addr),
			    bpf_htonl(sizeof(struct icmp) + QUOTE_V6 + PROTO_ICMPV6));
	icmp = (__u8 *)&answer->icmp;
	sum = bpf_csum_diff(NULL, 0, (__be32 *)icmp, SUM_AT_ONCE, sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)(icmp + SUM_AT_ONCE), SUM_AT_ONCE, sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)(icmp + 2 * SUM_AT_ONCE),
			    sizeof(struct icmp) + QUOTE_V6 - 2 * SUM_AT_ONCE, sum);
	answer->icmp.checksum = fold(sum);
	answer->ip.version = 6;
	answer->ip.priority = ANSWER_TOS >> 4;
	answer->ip.nexthdr = PROTO_ICMPV6;
	answer->ip.hop_limit = ANSWER_TTL;
	return replace(skb, answer, sizeof(*answer), QUOTE_V6 - sizeof(struct ipv6hdr)) ? -1 : 0;
}

/* Makes of a packet that is longer than `mtu` what tells its sender so. Not 0 where nobody may be told. */
static __always_inline int answer_too_big(struct __sk_buff *skb, __u32 mtu)
{
	return skb->protocol == bpf_htons(ETH_P_IP) ? tell4(skb, mtu) : tell6(skb, mtu);
}

#endif
