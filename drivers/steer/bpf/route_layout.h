/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What the maps of the routing program hold. The loader has the same structures in src/route/layout.rs; one of its tests
 * compares the two by BTF. Prefix lengths are those of the family; everything else is as in layout.h.
 */
#ifndef CATENA_ROUTE_LAYOUT_H
#define CATENA_ROUTE_LAYOUT_H

#include "layout.h"

/* Of one family at one port. */
#define MAX_PROBES 32
/* Slots of next hops; 0 is nobody's. catena_driver::hops says how many there are. */
#define HOP_SLOTS 512
/* The bits of the packet mark that are ours, and what they say: catena_driver::hops. */
#define HOP_FIELD 0x03ff0000
#define HOP_SHIFT 16
#define HOP_CHOSEN 0x02000000
#define HOP_PASSED 0x00010000

/* A look into the rules: those of one class. Rules of a class have the same order, and look at as many bits of the same address. */
struct probe {
	/* By words, as in the packet. */
	__be32 mask[4];
	__u32 class;
	/* Of the destination; else of the source. */
	__u8 destination;
	__u8 unless_released;
	__u8 pad[2];
};

/* What is asked of packets that come in by a port, in the order of the rules: the first that matches decides. */
struct entrance {
	/* A number that no other content of any port has, or had for a long time. */
	__u32 generation;
	/* The bit of the mark that says "released". */
	__u32 released;
	__u32 clsact;
	/* Frames begin with an Ethernet header. */
	__u32 ethernet;
	__u32 count4;
	__u32 count6;
	char name[PORT_NAME];
	struct probe probes4[MAX_PROBES];
	struct probe probes6[MAX_PROBES];
};

/* What the rules of a class have in common. */
struct class {
	__u16 order;
	__u8 family;
	__u8 destination;
	__u8 length;
	__u8 unless_released;
	__u8 pad[2];
	/* Empty: any. */
	char port[PORT_NAME];
};

struct rule_key4 {
	__u32 class;
	__be32 address;
};

struct rule_key6 {
	__u32 class;
	__be32 address[4];
};

/* Where a rule leads: the path that it names, and the slot of that path's hop; 0: nowhere, packets are dropped. */
struct lead {
	__u32 path;
	__u32 hop;
};

struct table_key {
	__u32 path;
	__u32 family;
};

/*
 * The element's own addresses, each as a bit: who has none surely is not the element. What has one is for the kernel to look
 * at, which knows.
 */
#define OWN_BITS 65536
struct own {
	__u64 bits[OWN_BITS / 64];
	/* There are whole networks among them: everything is for the kernel to look at. */
	__u64 all;
};

/* What the element has once. */
struct router {
	/* The generation given last. */
	__u32 generation;
	__u32 pad;
};

#endif
