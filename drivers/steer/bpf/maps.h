/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The maps. All of them are pinned, under their names here, for as long as the element has any object.
 *
 * Big ones are allocated as they fill (BPF_F_NO_PREALLOC): most elements use few of them. LPM tries want that flag
 * anyway. The flow table is a plain hash and not LRU: an LRU map evicts flows that are alive; when this one is full,
 * packets are forwarded without an entry, by the same deterministic choice.
 */
#ifndef CATENA_MAPS_H
#define CATENA_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"

#define MAP(map_name, map_type, key_type, value_type, entries, flags) \
	struct { \
		__uint(type, map_type); \
		__type(key, key_type); \
		__type(value, value_type); \
		__uint(max_entries, entries); \
		__uint(map_flags, flags); \
	} map_name SEC(".maps")

/* By ifindex. */
MAP(ports, BPF_MAP_TYPE_HASH, __u32, struct port, 4096, 0);
/* Prefix to site, for classification. */
MAP(sites4, BPF_MAP_TYPE_LPM_TRIE, struct lpm4, __u32, 262144, BPF_F_NO_PREALLOC);
MAP(sites6, BPF_MAP_TYPE_LPM_TRIE, struct lpm6, __u32, 262144, BPF_F_NO_PREALLOC);
/* By site. */
MAP(policies, BPF_MAP_TYPE_HASH, __u32, struct policy, 65536, BPF_F_NO_PREALLOC);
/* By number. */
MAP(paths, BPF_MAP_TYPE_HASH, __u32, struct path, 262144, BPF_F_NO_PREALLOC);
MAP(instances, BPF_MAP_TYPE_HASH, __u32, struct instance, 4096, BPF_F_NO_PREALLOC);

MAP(flows, BPF_MAP_TYPE_HASH, struct flow_key, struct flow, 262144, BPF_F_NO_PREALLOC);
/* A fragment whose first one was evicted is dropped, so here LRU does no harm. */
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct tuple, 8192, 0);

/* By site. */
MAP(tunnels, BPF_MAP_TYPE_HASH, __u32, struct tunnel, 65536, BPF_F_NO_PREALLOC);
/* Outer addresses and key to site. */
MAP(tunnel_ends, BPF_MAP_TYPE_HASH, struct tunnel_end, __u32, 65536, BPF_F_NO_PREALLOC);
/* Local outer address to the number of tunnels that have it. */
MAP(tunnel_locals, BPF_MAP_TYPE_HASH, __be32, __u32, 65536, BPF_F_NO_PREALLOC);
/* Prefix to the site whose tunnel leads there. */
MAP(allowed4, BPF_MAP_TYPE_LPM_TRIE, struct lpm4, __u32, 262144, BPF_F_NO_PREALLOC);
MAP(allowed6, BPF_MAP_TYPE_LPM_TRIE, struct lpm6, __u32, 262144, BPF_F_NO_PREALLOC);

MAP(elements, BPF_MAP_TYPE_ARRAY, __u32, struct element, 1, 0);
MAP(counters, BPF_MAP_TYPE_PERCPU_HASH, struct counter_key, struct counter, 262144, BPF_F_NO_PREALLOC);

#endif
