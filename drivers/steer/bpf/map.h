/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* How maps are declared. */
#ifndef CATENA_MAP_H
#define CATENA_MAP_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAP(map_name, map_type, key_type, value_type, entries, flags) \
	struct { \
		__uint(type, map_type); \
		__type(key, key_type); \
		__type(value, value_type); \
		__uint(max_entries, entries); \
		__uint(map_flags, flags); \
	} map_name SEC(".maps")

#endif
