/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Addresses of both families in one form: see layout.h. */
#ifndef CATENA_ADDRESS_H
#define CATENA_ADDRESS_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTO_ICMPV6 58

static __always_inline void map_v4(__be32 to[4], __be32 address)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = address;
}

#endif
