/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the maps hold. The loader has the same structures in src/layout.rs; one of its tests compares the two by BTF.
 *
 * Addresses are 16 bytes in network order, IPv4 as v4-mapped IPv6 (RFC 4291 section 2.5.5.2). Ports are in host order.
 */
#ifndef CATENA_LAYOUT_H
#define CATENA_LAYOUT_H

#include <linux/types.h>

#define MAX_HOPS 8
#define MAX_INSTANCES 16
#define MAX_RULES 32
/* What a flow has at a hop where there was nothing to pick from. */
#define NO_INSTANCE 0xffffffff
/* IFNAMSIZ */
#define PORT_NAME 16

enum direction {
	UP = 0,
	DOWN = 1,
};

/* Everything that a port is for. Several can hold at once. */
enum role {
	ROLE_CLAIM = 1 << 0,
	ROLE_STEER = 1 << 1,
	/* A function's side; what comes out of the inside goes down, what comes out of the outside goes up. */
	ROLE_INSIDE = 1 << 2,
	ROLE_OUTSIDE = 1 << 3,
	/* That function leaves MAC addresses alone, so a frame carries its tag back. */
	ROLE_L2 = 1 << 4,
	/* Encapsulated packets come in here. */
	ROLE_UNDERLAY = 1 << 5,
};

struct port {
	__u32 roles;
	/* Directions that ROLE_CLAIM or ROLE_STEER is for: 1 << UP, 1 << DOWN. */
	__u32 directions;
	/* The bit of skb->mark that says "released". */
	__u32 mark;
	/* Whether the clsact qdisc there is ours to take away. */
	__u32 clsact;
	char name[PORT_NAME];
};

/* One way out: a port, and for l3 the neighbours there. */
struct side {
	__u32 ifindex;
	__u8 has_v4;
	__u8 has_v6;
	__u8 pad[2];
	char name[PORT_NAME];
	__be32 v4;
	__be32 v6[4];
};

enum insertion {
	L3 = 0,
	L2 = 1,
};

struct instance {
	__u32 insertion;
	struct side inside;
	struct side outside;
};

struct hop {
	__u32 count;
	__u32 instances[MAX_INSTANCES];
};

struct path {
	__u32 site;
	__u32 count;
	struct hop hops[MAX_HOPS];
};

enum action {
	ACTION_CLAIM = 0,
	ACTION_PATH = 1,
};

/* A prefix of any family: `family` is 0 where there is none, else 4 or 6. */
struct prefix {
	__be32 address[4];
	__be32 mask[4];
	__u8 family;
	__u8 length;
	__u8 pad[2];
};

struct rule {
	/* The site's end. */
	struct prefix local;
	struct prefix remote;
	__u16 first_port;
	__u16 last_port;
	__u8 has_protocol;
	__u8 protocol;
	__u8 has_ports;
	__u8 action;
	__u32 path;
};

struct policy {
	/* Different in every write of any policy: see evaluate(). */
	__u64 serial;
	__u32 site;
	__u32 count;
	__u32 has_exits;
	/* By direction. */
	struct side exits[2];
	struct rule rules[MAX_RULES];
	__u32 pad;
};

/* The fields that steering looks at; those of the packet itself or of the one that an ICMP error answers to. */
struct tuple {
	__be32 source[4];
	__be32 destination[4];
	__u16 source_port;
	__u16 destination_port;
	__u8 protocol;
	__u8 pad[3];
};

/* The same for both directions of a flow: the lower end first. */
struct flow_key {
	__u32 site;
	__be32 low[4];
	__be32 high[4];
	__u16 low_port;
	__u16 high_port;
	__u8 protocol;
	__u8 pad[3];
};

enum flow_state {
	SEEN_UP = 1 << UP,
	SEEN_DOWN = 1 << DOWN,
	FIN_UP = 4 << UP,
	FIN_DOWN = 4 << DOWN,
	RESET = 16,
};

struct flow {
	/* CLOCK_MONOTONIC, in nanoseconds. */
	__u64 seen;
	__u32 path;
	__u32 state;
	__u32 instances[MAX_HOPS];
};

struct fragment_key {
	__be32 source[4];
	__be32 destination[4];
	__be32 id;
	/* 0 for IPv6, whose identification is of the pair of addresses alone (RFC 8200 section 4.5). */
	__u8 protocol;
	__u8 pad[3];
};

struct tunnel {
	__u32 underlay;
	__be32 local;
	__be32 remote;
	__u32 key;
	__u32 has_key;
	__u32 mtu;
	/* To be cleared: what is sent from here is not what was released. */
	__u32 mark;
	char name[PORT_NAME];
};

struct tunnel_end {
	__be32 local;
	__be32 remote;
	__u32 key;
	__u32 has_key;
};

struct lpm4 {
	__u32 length;
	__be32 address;
};

struct lpm6 {
	__u32 length;
	__be32 address[4];
};

/* What the element has once. */
struct element {
	/* Counts the changes that a loader made; another one sees by it that what it remembers is old. */
	__u64 changes;
	/* The visible end of the veth pair of tunnels, and the hidden one. */
	__u32 tunnels;
	__u32 hidden;
	__u8 tunnels_mac[6];
	__u8 pad[2];
};

enum counted {
	COUNT_HOP = 0,
	COUNT_EXIT = 1,
	COUNT_TRANSIT = 2,
	COUNT_CLAIMED = 3,
	COUNT_ENCAPSULATED = 4,
	COUNT_DECAPSULATED = 5,
	COUNT_DROPPED = 6,
};

/* catena_driver::DropReason, in its order. */
enum reason {
	DROP_NO_INSTANCE = 0,
	DROP_UNEXPECTED = 1,
	DROP_MISSING = 2,
	DROP_FRAGMENT = 3,
	DROP_MALFORMED = 4,
	DROP_TOO_BIG = 5,
	DROP_FORGED_SOURCE = 6,
	DROP_UNKNOWN_TUNNEL = 7,
	DROP_NO_TUNNEL = 8,
	DROP_KERNEL = 9,
};

struct counter_key {
	__u8 counted;
	__u8 direction;
	/* Of a hop; of a drop, the reason. */
	__u8 position;
	__u8 pad;
	/* A path or a site. */
	__u32 of;
	__u32 instance;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

#endif
