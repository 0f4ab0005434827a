/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Functions that are a bump in the wire and leave VLAN tags alone: each path has a VLAN of its own (IEEE 802.1Q). The tag
 * tells the path and the port the direction; MAC addresses are tags too, for those who learn them, but nobody reads them.
 */
#ifndef CATENA_VLAN_H
#define CATENA_VLAN_H

#include "send.h"

static __noinline int send_vlan(struct __sk_buff *skb, const struct place *place, const struct side *side)
{
	__u32 id = place->path;
	struct path *path = bpf_map_lookup_elem(&paths, &id);
	int misfits = does_not_fit(skb, side->ifindex);

	if (misfits)
		return refuse(skb, id, misfits);
	if (!path || !path->vlan)
		return drop_on(skb, id, DROP_MISSING);
	/* A priority tag would go on behind ours, where the function does not look for IP. */
	if ((skb->vlan_present && bpf_skb_vlan_pop(skb)) || write_tags(skb, place) ||
	    bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), path->vlan))
		return drop_on(skb, id, DROP_KERNEL);
	return side->direct ? bpf_redirect_peer(side->ifindex, 0) : bpf_redirect(side->ifindex, 0);
}

/* A one-armed one is told by the MAC address. */
static __always_inline int told_by_vlan(struct __sk_buff *skb, const struct port *port, struct place *place)
{
	__u32 vlan, *path;
	__u8 source[ETH_ALEN];

	if (!skb->vlan_present || !(skb->vlan_tci & VLAN_VID))
		return UNTOLD;
	vlan = skb->vlan_tci & VLAN_VID;
	path = bpf_map_lookup_elem(&vlans, &vlan);
	if (!path)
		return WRONG;
	place->direction = port->roles & ROLE_OUTSIDE ? UP : DOWN;
	if (port->roles & ROLE_OUTSIDE && port->roles & ROLE_INSIDE) {
		if (bpf_skb_load_bytes(skb, ETH_ALEN, source, sizeof(source)) || !read_tag(source, place))
			return WRONG;
	}
	place->path = *path;
	place->position = -1;
	return bpf_skb_vlan_pop(skb) ? WRONG : TOLD;
}

#endif
