/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps. All of them are pinned, under their names here, for as long as the element has any object. The sizes here are
 * those of the default settings; the loader makes those that grow with tenants or flows as large as it is told.
 *
 * Big ones are allocated as they fill (BPF_F_NO_PREALLOC): most elements use few of them. The flow tables are plain hashes
 * and not LRU: an LRU map evicts flows that are alive. When one is full, packets are forwarded without an entry, by the
 * same deterministic choice.
 */
#ifndef CATENA_MAPS_H
#define CATENA_MAPS_H

#include "layout.h"
#include "map.h"

/* By ifindex. */
MAP(ports, BPF_MAP_TYPE_ARRAY, __u32, struct port, NEAR_PORTS, 0);
MAP(far_ports, BPF_MAP_TYPE_HASH, __u32, struct port, 4096, BPF_F_NO_PREALLOC);
/* Prefix to site, for every space. */
MAP(prefixes, BPF_MAP_TYPE_HASH, struct prefix_key, __u32, 262144, BPF_F_NO_PREALLOC);
/* By space, IPv4 and IPv6 in turn. */
MAP(lengths, BPF_MAP_TYPE_ARRAY, __u32, struct lengths, 2 * SPACES, 0);
/* By site. */
MAP(policies, BPF_MAP_TYPE_HASH, __u32, struct policy, 65536, BPF_F_NO_PREALLOC);
MAP(rules, BPF_MAP_TYPE_HASH, struct rules_key, struct rules, 131072, BPF_F_NO_PREALLOC);
/* By number. */
MAP(paths, BPF_MAP_TYPE_HASH, __u32, struct path, 131072, BPF_F_NO_PREALLOC);
MAP(groups, BPF_MAP_TYPE_HASH, __u32, struct group, 16384, BPF_F_NO_PREALLOC);
/* VLAN to path. */
MAP(vlans, BPF_MAP_TYPE_HASH, __u32, __u32, 4096, BPF_F_NO_PREALLOC);
/* By slot. */
MAP(instances, BPF_MAP_TYPE_ARRAY, __u32, struct instance, INSTANCE_SLOTS, 0);
MAP(exits, BPF_MAP_TYPE_ARRAY, __u32, struct side, EXIT_SLOTS, 0);

MAP(flows4, BPF_MAP_TYPE_HASH, struct flow_key4, struct entry, 262144, BPF_F_NO_PREALLOC);
MAP(flows6, BPF_MAP_TYPE_HASH, struct flow_key6, struct entry, 262144, BPF_F_NO_PREALLOC);
/* Where an entry is put together: too large for the stack. */
MAP(new_entry, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct entry, 1, 0);
/* By site. */
MAP(loads, BPF_MAP_TYPE_HASH, __u32, struct load, 65536, BPF_F_NO_PREALLOC);
/* A fragment whose first one was evicted is dropped, so here LRU does no harm. */
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct tuple, 8192, 0);

/* By site. */
MAP(tunnels, BPF_MAP_TYPE_HASH, __u32, struct tunnel, 65536, BPF_F_NO_PREALLOC);
/* Outer addresses and key to site. */
MAP(tunnel_ends, BPF_MAP_TYPE_HASH, struct tunnel_end, __u32, 65536, BPF_F_NO_PREALLOC);
/* Local outer address to the number of tunnels that have it. */
MAP(tunnel_locals, BPF_MAP_TYPE_HASH, __be32[4], __u32, 65536, BPF_F_NO_PREALLOC);

/* By outer addresses; see identify(). */
MAP(identifications, BPF_MAP_TYPE_ARRAY, __u32, __u32, IDENTIFICATIONS, 0);

/* Room for one ICMP error of either kind: what is written here is gone when the program ends. */
MAP(answers, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct answer6, 1, 0);

MAP(elements, BPF_MAP_TYPE_ARRAY, __u32, struct element, 1, 0);
MAP(counters, BPF_MAP_TYPE_PERCPU_HASH, struct counter_key, struct counter, 262144, BPF_F_NO_PREALLOC);
/* What came back from an instance: twice its slot, and the direction. */
MAP(returned, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, 2 * INSTANCE_SLOTS, 0);

#endif
