/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Instances, by the handles that flows and groups know them by. */
#ifndef CATENA_INSTANCE_H
#define CATENA_INSTANCE_H

#include <bpf/bpf_helpers.h>

#include "layout.h"
#include "maps.h"

/* The instance with this handle; null if its slot is another's by now, or nobody's. */
static __always_inline struct instance *find_instance(__u32 handle)
{
	__u32 slot = handle % INSTANCE_SLOTS;
	struct instance *instance = bpf_map_lookup_elem(&instances, &slot);

	return instance && handle && instance->handle == handle ? instance : NULL;
}

/* The verifier wants to see the bound that the compiler knows and would leave out. */
static __always_inline __u32 instance_at(const struct flow *flow, __u32 position)
{
	barrier_var(position);
	return flow->instances[position & (MAX_HOPS - 1)];
}

/* What goes in on either way goes in by one port, and comes out there. */
static __always_inline int is_one_armed(const struct instance *instance)
{
	return instance->inside.ifindex == instance->outside.ifindex;
}

#endif
