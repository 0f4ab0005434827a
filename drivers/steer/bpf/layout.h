/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the maps hold. The loader has the same structures in src/layout.rs; one of its tests compares the two by BTF.
 *
 * Addresses are 16 bytes in network order, IPv4 as v4-mapped IPv6 (RFC 4291 section 2.5.5.2), so prefix lengths are those
 * of IPv6: 96 more for IPv4. Ports and numbers are in host order.
 */
#ifndef CATENA_LAYOUT_H
#define CATENA_LAYOUT_H

#include <linux/bpf.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>

#define MAX_HOPS 8
#define MAX_INSTANCES 16
#define RULES_PER_BLOCK 4
#define MAX_RULES 32
/* IFNAMSIZ */
#define PORT_NAME 16
/* Instances and exits have slots in arrays: no map is cheaper to look into. Slot 0 is nobody's. */
#define INSTANCE_SLOTS 2048
#define EXIT_SLOTS 1024
/* Ports with numbers below this are in an array, all others in a hash. */
#define NEAR_PORTS 4096

enum direction {
	UP = 0,
	DOWN = 1,
};

/* Everything that a port is for. Several can hold at once. */
enum role {
	ROLE_CLAIM = 1 << 0,
	ROLE_STEER = 1 << 1,
	/* A function's side; what comes out of the inside goes down, what comes out of the outside goes up. Both: one-armed. */
	ROLE_INSIDE = 1 << 2,
	ROLE_OUTSIDE = 1 << 3,
	/* Encapsulated packets come in here. */
	ROLE_UNDERLAY = 1 << 4,
	/* What comes in is of `port.site`, whatever its addresses. */
	ROLE_SITE = 1 << 5,
	/* The visible end of the veth pair of tunnels. */
	ROLE_TUNNELS = 1 << 6,
};

/* How a function is given packets, and how they are known when they come back: catena_model::forwarding::Insertion. */
enum insertion {
	L3 = 0,
	/* By its MAC addresses, which are a tag (send.h). */
	L2 = 1,
	TAP = 2,
	VLAN = 3,
	NSH_FIXED = 4,
	NSH_VARIABLE = 5,
};

struct port {
	/* 0: nothing is known of this port. */
	__u32 roles;
	/* Directions that ROLE_CLAIM or ROLE_STEER is for: 1 << UP, 1 << DOWN. */
	__u32 directions;
	/* The bit of skb->mark that says "released". */
	__u32 mark;
	/* Whether the clsact qdisc there is ours to take away. */
	__u32 clsact;
	__u32 site;
	/* A function's: enum insertion, and the handle of the instance whose side it is. */
	__u32 insertion;
	__u32 instance;
	/* A function's that rewrites addresses: the one path that it serves. */
	__u32 path;
	char name[PORT_NAME];
};

/*
 * One way out: a port, and for l3 the neighbours there. The loader writes the port's own MAC address; the last three fields
 * are the programs' own memory of the neighbours' (egress.h), and zero at first.
 */
struct side {
	__u32 ifindex;
	__u8 has_v4;
	__u8 has_v6;
	/* The port is one end of a veth pair, and what is sent may go straight into the other. */
	__u8 direct;
	/* Into the tunnel of the packet's site. */
	__u8 tunnel;
	char name[PORT_NAME];
	__be32 v4;
	__be32 v6[4];
	/* Of a router's next hop, 4 or 6; of all others, which can have both, 0. */
	__u32 family;
	/* As in `neighbours`. */
	__u64 own_mac;
	__u64 looked;
	__u64 v4_mac;
	__u64 v6_mac;
};

enum instance_state {
	INSTANCE_UP = 0,
	INSTANCE_DRAINING = 1,
	INSTANCE_DOWN = 2,
};

/* By slot. A handle is a slot in its low bits and a serial number above: a slot that was given anew has another one. */
struct instance {
	/* 0: the slot is free, or nobody is there yet. */
	__u32 handle;
	__u32 id;
	__u32 insertion;
	__u32 state;
	__u32 rewrites;
	/* catena_model::forwarding::Delivery: 0 direct, 1 queue */
	__u32 delivery;
	struct side inside;
	struct side outside;
};

struct member {
	__u32 handle;
	__u32 id;
	__u32 weight;
};

enum stickiness {
	FIVE_TUPLE = 0,
	THREE_TUPLE = 1,
	TWO_TUPLE = 2,
};

/* What a hop chooses from. Hops that say the same share one: immutable. */
struct group {
	__u32 id;
	__u32 count;
	__u32 stickiness;
	/* Where nobody is up: go on to the next function. */
	__u32 skip;
	struct member members[MAX_INSTANCES];
};

/* Immutable. */
struct path {
	__u32 id;
	__u32 site;
	/* See `flow_key`. */
	__u32 realm;
	__u32 count;
	__u32 vlan;
	__u32 groups[MAX_HOPS];
};

struct policy {
	/* Of its rules: a number that no other ever has. */
	__u32 generation;
	__u32 site;
	/* 0, or the site itself if its packets are told by port and not by address. */
	__u32 realm;
	/* Of rules. */
	__u32 count;
	/* Slots by direction; 0 on an element that only claims. */
	__u32 exits[2];
	/* When its rules took the place of others (CLOCK_MONOTONIC, in nanoseconds); 0 for the first. */
	__u64 since;
};

enum rule_flags {
	RULE_V4 = 1 << 0,
	RULE_V6 = 1 << 1,
	RULE_LOCAL = 1 << 2,
	RULE_REMOTE = 1 << 3,
	RULE_PROTOCOL = 1 << 4,
	RULE_PORTS = 1 << 5,
	RULE_DSCP = 1 << 6,
	/* Claim it; otherwise it is sent through the path. */
	RULE_CLAIM = 1 << 7,
};

struct rule {
	/* The site's end. */
	__be32 local[4];
	__be32 remote[4];
	__u16 first_port;
	__u16 last_port;
	__u8 local_length;
	__u8 remote_length;
	__u8 flags;
	__u8 protocol;
	__u32 path;
	__u8 dscp;
	__u8 pad[3];
};

struct rules_key {
	__u32 generation;
	__u32 block;
};

struct rules {
	struct rule rules[RULES_PER_BLOCK];
};

/* What prefixes are looked up for. */
enum space {
	SPACE_SITES = 0,
	SPACE_ALLOWED = 1,
	SPACES,
};

struct prefix_key {
	__be32 address[4];
	__u16 space;
	/* 0 to 128 */
	__u8 length;
	/* 4 or 6: ::/0 does not hold IPv4. */
	__u8 family;
};

/*
 * The lengths of the prefixes of one space and family, in no order. A length stays here when its last prefix goes: so the list only
 * grows, and can be read while it does.
 */
#define MAX_LENGTHS 32
struct lengths {
	__u32 count;
	__u8 lengths[MAX_LENGTHS];
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

/*
 * The same for both directions of a flow: the site's end first. The realm is 0 where addresses tell whose it is, and
 * else the site: there, two sites may have the same addresses.
 */
struct flow_key4 {
	__u32 realm;
	__be32 local;
	__be32 remote;
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};

struct flow_key6 {
	__u32 realm;
	__be32 local[4];
	__be32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 pad[3];
};

enum flow_state {
	SEEN_UP = 1 << UP,
	SEEN_DOWN = 1 << DOWN,
	FIN_UP = 4 << UP,
	FIN_DOWN = 4 << DOWN,
	RESET = 16,
	/* Not open yet, and in its site's number of those. */
	HALF_OPEN = 32,
};

/* What a flow has at a hop where there was nobody to choose; where it goes on without. */
#define NOBODY 0
#define SKIPPED 0xffffffff

struct flow {
	/* CLOCK_MONOTONIC_COARSE, in nanoseconds. */
	__u64 seen;
	__u32 path;
	__u32 site;
	__u32 state;
	__u32 count;
	/* Handles. Of a flow that passes no function (path 0), the first is the generation of the policy that says so. */
	__u32 instances[MAX_HOPS];
	/*
	 * Where it goes out, as its site's policy said when the element was at that change: `changes` in the upper half, the
	 * slots of the exits below, that for the way up lowest. 0: not asked yet.
	 */
	__u64 exits;
};

/* One more place than functions: the last is outside. */
#define PLACES (MAX_HOPS + 1)

/* A flow, and what of it is counted but not added up yet (tally.h). */
struct entry {
	struct flow flow;
	__u32 passed[2 * PLACES];
};

/* How many flows a site has in the table. */
struct load {
	__u32 flows;
	__u32 half_open;
	/* When the site may open the next flow: the generic cell rate algorithm (ITU-T I.371). Nanoseconds. */
	__u64 next;
};

struct fragment_key {
	__be32 source[4];
	__be32 destination[4];
	__be32 id;
	/* Fragments of one packet come by one way: the port, or a tagged frame's path. */
	__u32 scope;
	/* 0 for IPv6, whose identification is of the pair of addresses alone (RFC 8200 section 4.5). */
	__u8 protocol;
	__u8 pad[3];
};

/* catena_model::forwarding::Oversize: the sender is told, or the outer packet is cut, which IPv4 alone can. */
enum oversize {
	TELL_SENDER = 0,
	CUT_OUTER = 1,
};

struct tunnel {
	__u32 underlay;
	__be32 local[4];
	__be32 remote[4];
	__u32 key;
	__u8 has_key;
	/* 4 or 6 */
	__u8 family;
	/* enum oversize */
	__u8 oversize;
	__u8 pad;
	__u32 mtu;
	/* To be cleared: what is sent from here is not what was released. */
	__u32 mark;
	char name[PORT_NAME];
};

/* Pairs of outer addresses share these counters: a few may share one, which then counts on faster. */
#define IDENTIFICATIONS 256

struct tunnel_end {
	__be32 local[4];
	__be32 remote[4];
	__u32 key;
	__u32 has_key;
};

/* Of ICMP and ICMPv6, as far as they tell of what is too big. */
struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 mtu;
};

/* As much as fits into what every host takes: 576 bytes (RFC 1812 section 4.3.2.3) and 1280 (RFC 4443 section 2.4 c). */
#define QUOTE_V4 548
#define QUOTE_V6 1232

struct answer4 {
	struct iphdr ip;
	struct icmp icmp;
	__u8 quote[QUOTE_V4];
};

struct answer6 {
	struct ipv6hdr ip;
	struct icmp icmp;
	__u8 quote[QUOTE_V6];
};

/* Of a MAC address in 64 bits: its six bytes as on the wire, and this where it is known. */
#define HEARD (1ULL << 48)
/* The kernel was told it, and does not ask: no frame changes it. */
#define PERMANENT (1ULL << 49)

struct neighbour_key {
	__u32 ifindex;
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
	/* Whether senders are told of what does not fit a port. */
	__u8 tells_too_big;
	__u8 pad;
	/* Limits of each site; 0 for none. */
	__u32 flows;
	__u32 half_open;
	/* Between two new flows of one site on average, in nanoseconds; and how much of that may be used at once. */
	__u64 interval;
	__u64 burst;
	/* How long flows are kept without a packet, in nanoseconds. */
	__u64 closed;
	__u64 unanswered;
	__u64 connection;
	__u64 conversation;
	__u64 other;
	/* …and how long they count as alive. */
	__u64 alive;
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
	DROP_SERVICE_INDEX = 10,
	DROP_LIMIT = 11,
	DROP_CONGESTION = 12,
	DROP_UNREACHABLE = 13,
};

struct counter_key {
	__u8 counted;
	__u8 direction;
	/* Of a hop; of a drop, the reason. */
	__u8 position;
	__u8 pad;
	/* A path or a site; of a drop, the path or 0. */
	__u32 of;
	__u32 instance;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

/* What the program catena_sweep is asked, behind an Ethernet header. */
enum sweep_task {
	/* Forget flows that have been idle for too long. Answers how many. */
	SWEEP_IDLE = 0,
	/* Count the flows of path `of` that are alive. */
	SWEEP_COUNT = 1,
	/* Forget the flows of site `of`, or of any if it is 0, whose addresses are not its own any more. */
	SWEEP_STRANGERS = 2,
	/* Forget the flows of path `of`; if it is 0, of all paths that are not installed. */
	SWEEP_PATH = 3,
	/* Add up what the flows have counted. */
	SWEEP_TALLIES = 4,
};

struct sweep_request {
	__u32 task;
	__u32 of;
};

#endif
