/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Policy-based routing at tc ingress of a router's ports: a tenant's prefix to a next hop.
 *
 * What `ip rule` finds by asking one rule after the other is found here by a look into a hash for each class of rules, which are few
 * however many tenants there are. A plain packet is sent on at once, as a router does it: its TTL is one less. All others
 * that a rule matches (options, a TTL that ends, too long for the next link, perhaps for the element itself) are given the
 * number of their hop in the mark: the kernel's rules lead that to the hop's own table, and nowhere else, so the kernel does
 * what a router has to do with them, and cannot take its owner's routes. What no rule matches is marked as passed, and goes by
 * its owner's routes.
 *
 * It fails closed: what comes in by one of these ports with no mark of ours is dropped by a rule of the kernel's. So nothing
 * here may be lost without its port being closed, and this program must run behind the one that says what is released
 * (steer.bpf.c): what is not, is not.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "egress.h"
#include "map.h"
#include "route_layout.h"
#include "verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define HOP_BY_HOP 0
#define VLAN_VID 0x0fff

/* By ifindex. A hash, since its entries are replaced whole. */
MAP(entrances, BPF_MAP_TYPE_HASH, __u32, struct entrance, 4096, BPF_F_NO_PREALLOC);
/* By number, for the loader to read again. */
MAP(classes, BPF_MAP_TYPE_HASH, __u32, struct class, 4096, BPF_F_NO_PREALLOC);
MAP(rules4, BPF_MAP_TYPE_HASH, struct rule_key4, struct lead, 262144, BPF_F_NO_PREALLOC);
MAP(rules6, BPF_MAP_TYPE_HASH, struct rule_key6, struct lead, 262144, BPF_F_NO_PREALLOC);
/* The slot of a path's hop, for the loader to read again. */
MAP(tables, BPF_MAP_TYPE_HASH, struct table_key, __u32, 262144, BPF_F_NO_PREALLOC);
/* By slot: a neighbour of one family, or of none where each destination is its own. */
MAP(hops, BPF_MAP_TYPE_ARRAY, __u32, struct side, HOP_SLOTS, 0);
MAP(owns, BPF_MAP_TYPE_ARRAY, __u32, struct own, 1, 0);
MAP(routers, BPF_MAP_TYPE_ARRAY, __u32, struct router, 1, 0);
/* By reason. */
MAP(drops, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, 16, 0);


static __noinline int drop(struct __sk_buff *skb, __u32 reason)
{
	struct counter *counter = bpf_map_lookup_elem(&drops, &reason);

	if (counter)
		add(counter, packets_of(skb), skb->len);
	return TC_ACT_SHOT;
}

/* The element's own bit for an address, given as one word. src/route/own.rs computes the same. */
static __always_inline int is_own(__u32 word)
{
	__u32 zero = 0, bit = (word * 0x9e3779b1) >> 16;
	struct own *own = bpf_map_lookup_elem(&owns, &zero);

	return !own || own->all || own->bits[bit / 64 % (OWN_BITS / 64)] >> (bit % 64) & 1;
}

/* 0/8, 127/8, multicast, reserved and broadcast: the kernel knows what is to be done with them. */
static __always_inline int is_odd4(__be32 address)
{
	__u32 first = bpf_ntohl(address) >> 24;

	return first == 0 || first == 127 || first >= 224;
}

/* ::/8, fe80::/10 and its like, multicast. */
static __always_inline int is_odd6(const __be32 address[4])
{
	__u32 first = bpf_ntohl(address[0]) >> 24;

	return first == 0 || first >= 0xfe;
}

static __always_inline struct lead *find4(const struct __sk_buff *skb, const struct entrance *port, __be32 source,
					  __be32 destination)
{
	for (__u32 i = 0; i < MAX_PROBES; i++) {
		const struct probe *probe = &port->probes4[i];
		struct rule_key4 key;
		struct lead *lead;

		if (i >= port->count4)
			break;
		if (probe->unless_released && skb->mark & port->released)
			continue;
		key.class = probe->class;
		key.address = (probe->destination ? destination : source) & probe->mask[0];
		lead = bpf_map_lookup_elem(&rules4, &key);
		if (lead)
			return lead;
	}
	return NULL;
}

static __always_inline struct lead *find6(const struct __sk_buff *skb, const struct entrance *port, const __be32 source[4],
					  const __be32 destination[4])
{
	for (__u32 i = 0; i < MAX_PROBES; i++) {
		const struct probe *probe = &port->probes6[i];
		struct rule_key6 key;
		struct lead *lead;

		if (i >= port->count6)
			break;
		if (probe->unless_released && skb->mark & port->released)
			continue;
		key.class = probe->class;
		for (int word = 0; word < 4; word++)
			key.address[word] = (probe->destination ? destination[word] : source[word]) & probe->mask[word];
		lead = bpf_map_lookup_elem(&rules6, &key);
		if (lead)
			return lead;
	}
	return NULL;
}

/* No rule matches: its owner's routes. Unless the entry was another's at the end: then nobody has looked, and the port is closed. */
static __always_inline int pass(struct __sk_buff *skb, const struct entrance *port, __u32 generation)
{
	__u32 mark = skb->mark & ~HOP_FIELD;

	if (*(const volatile __u32 *)&port->generation == generation)
		mark |= HOP_PASSED;
	skb->mark = mark;
	return NEXT;
}

static __always_inline int by_kernel(struct __sk_buff *skb, __u32 slot)
{
	skb->mark = (skb->mark & ~HOP_FIELD) | HOP_CHOSEN | slot << HOP_SHIFT;
	return NEXT;
}

/* On a wire, marks are nobody's. */
static __always_inline void forget_mark(struct __sk_buff *skb, const struct entrance *port)
{
	__u32 ours = HOP_FIELD | port->released;

	if (skb->mark & ours)
		skb->mark &= ~ours;
}

/* As ip_decrease_ttl() does it (RFC 1624): the sum of the header stays what it was. */
static __always_inline int decrease4(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;
	__u32 check;

	if ((void *)(ip + 1) > data_end)
		return -1;
	check = ip->check + bpf_htons(0x0100);
	ip->check = check + (check >= 0xffff);
	ip->ttl--;
	return 0;
}

static __always_inline int decrease6(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > data_end)
		return -1;
	ip->hop_limit--;
	/* A sum of the whole packet, where the hardware made one, is one less in that word. */
	bpf_csum_update(skb, 0xffff - bpf_htons(1));
	return 0;
}

/* A plain packet: its TTL is more than 1, it fits, and its neighbour is `via`. The TTL is written when nothing can fail any more. */
static __always_inline int send(struct __sk_buff *skb, const struct entrance *port, __u32 family, struct side *hop,
				const __be32 *via)
{
	__u64 mac = heard_neighbour(family, hop);

	if (family == 4 ? decrease4(skb) : decrease6(skb))
		return drop(skb, DROP_KERNEL);
	forget_mark(skb, port);
	if (mac && !write_macs(skb, mac, hop->own_mac))
		return bpf_redirect_peer(hop->ifindex, 0);
	return to_neighbour(hop->ifindex, family, via);
}

/* The hop in a slot; null if nobody is there, or if its port was not found. */
static __always_inline struct side *find_hop(__u32 slot)
{
	struct side *hop = slot ? bpf_map_lookup_elem(&hops, &slot) : NULL;

	return hop && hop->ifindex ? hop : NULL;
}

/* 0, or why the packet cannot be sent at once, as misfit() says it. */
static __always_inline int fits(struct __sk_buff *skb, const struct side *hop)
{
	return skb->len <= SURELY_FITS ? 0 : misfit(skb, hop->ifindex);
}

/*
 * A super-frame of which the kernel does not know how many segments it has, since a program took it out of a tunnel: on its own
 * way it counts them.
 */
static __always_inline int is_uncounted(const struct __sk_buff *skb)
{
	return skb->gso_size && !skb->gso_segs;
}

/* Whole, at least as long as it says, nothing but a header of the least length, and not at its end. */
static __always_inline int is_plain4(const struct __sk_buff *skb, const struct entrance *port, const struct iphdr *ip)
{
	__u32 length = bpf_ntohs(ip->tot_len);

	return port->ethernet && !skb->vlan_present && !is_uncounted(skb) && *(const __u8 *)ip == 0x45 && ip->ttl > 1 &&
	       length >= sizeof(*ip) && ETH_HLEN + length <= skb->len;
}

static __noinline int route4(struct __sk_buff *skb, const struct entrance *port)
{
	const void *data = (const void *)(long)skb->data, *data_end = (const void *)(long)skb->data_end;
	const struct iphdr *ip = data + ETH_HLEN;
	__u32 generation = *(const volatile __u32 *)&port->generation, slot;
	__be32 source, destination, via;
	struct side *hop;
	struct lead *lead;
	int plain = 0, misfits;

	if ((const void *)(ip + 1) <= data_end && is_plain4(skb, port, ip)) {
		plain = 1;
		source = ip->saddr;
		destination = ip->daddr;
	} else {
		struct iphdr header;

		/* What is no IP header, the stack drops. */
		if (bpf_skb_load_bytes_relative(skb, 0, &header, sizeof(header), BPF_HDR_START_NET))
			return NEXT;
		source = header.saddr;
		destination = header.daddr;
	}
	lead = find4(skb, port, source, destination);
	if (!lead)
		return pass(skb, port, generation);
	slot = lead->hop;
	hop = find_hop(slot);
	if (!hop)
		return drop(skb, DROP_MISSING);
	if (!plain || is_odd4(source) || is_odd4(destination) || is_own(destination))
		return by_kernel(skb, slot);
	misfits = fits(skb, hop);
	if (misfits)
		return misfits == DROP_TOO_BIG + 1 ? by_kernel(skb, slot) : drop(skb, misfits - 1);
	via = hop->has_v4 ? hop->v4 : destination;
	return send(skb, port, 4, hop, &via);
}

/* The same of IPv6. What may be neighbour discovery (RFC 4861 section 6.1) is for the kernel, too. */
static __always_inline int is_plain6(const struct __sk_buff *skb, const struct entrance *port, const struct ipv6hdr *ip)
{
	__u32 length = bpf_ntohs(ip->payload_len);

	if (ip->nexthdr == HOP_BY_HOP || (ip->nexthdr == PROTO_ICMPV6 && ip->hop_limit == 255))
		return 0;
	return port->ethernet && !skb->vlan_present && !is_uncounted(skb) && ip->version == 6 && ip->hop_limit > 1 &&
	       length && ETH_HLEN + sizeof(*ip) + length <= skb->len;
}

static __noinline int route6(struct __sk_buff *skb, const struct entrance *port)
{
	const void *data = (const void *)(long)skb->data, *data_end = (const void *)(long)skb->data_end;
	const struct ipv6hdr *ip = data + ETH_HLEN;
	__u32 generation = *(const volatile __u32 *)&port->generation, slot;
	__be32 source[4], destination[4];
	struct side *hop;
	struct lead *lead;
	int plain = 0, misfits;

	if ((const void *)(ip + 1) <= data_end && is_plain6(skb, port, ip)) {
		plain = 1;
		__builtin_memcpy(source, &ip->saddr, sizeof(source));
		__builtin_memcpy(destination, &ip->daddr, sizeof(destination));
	} else {
		struct ipv6hdr header;

		if (bpf_skb_load_bytes_relative(skb, 0, &header, sizeof(header), BPF_HDR_START_NET))
			return NEXT;
		__builtin_memcpy(source, &header.saddr, sizeof(source));
		__builtin_memcpy(destination, &header.daddr, sizeof(destination));
		listen_to_discovery(skb);
	}
	lead = find6(skb, port, source, destination);
	if (!lead)
		return pass(skb, port, generation);
	slot = lead->hop;
	hop = find_hop(slot);
	if (!hop)
		return drop(skb, DROP_MISSING);
	if (!plain || is_odd6(source) || is_odd6(destination) ||
	    is_own(destination[0] ^ destination[1] ^ destination[2] ^ destination[3]))
		return by_kernel(skb, slot);
	misfits = fits(skb, hop);
	if (misfits)
		return misfits == DROP_TOO_BIG + 1 ? by_kernel(skb, slot) : drop(skb, misfits - 1);
	return send(skb, port, 6, hop, hop->has_v6 ? hop->v6 : destination);
}

SEC("tc")
int catena_route(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct entrance *port = bpf_map_lookup_elem(&entrances, &ifindex);

	/* A tagged frame is of the port of its VLAN. */
	if (!port || (skb->vlan_present && skb->vlan_tci & VLAN_VID))
		return NEXT;
	/* What is not for this MAC address is not routed. */
	if (skb->pkt_type != PACKET_HOST) {
		listen(skb);
		return NEXT;
	}
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return route4(skb, port);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return route6(skb, port);
	listen(skb);
	return NEXT;
}
