"""A function that understands the Network Service Header on Ethernet (RFC 8300): takes frames off a port, decrements the
service index and sends them back by the same port. What it would do with the packet inside is left out."""

import socket
import struct
import sys

ETH_P_NSH = 0x894F
ETH_HLEN = 14
# Destination and source address, EtherType, then the base header and the service path header.
HEADERS = struct.Struct("!6s6sHII")
LARGEST = 65536


def passed_on(frame):
    """The frame to send back; None for one that this function has to drop."""
    if len(frame) < HEADERS.size:
        return None
    destination, source, ethertype, base, path = HEADERS.unpack_from(frame)
    words = base >> 16 & 0x3F  # The header's length in four bytes, with the metadata
    index = path & 0xFF
    # Section 2.2: version 0, and a length that holds the two headers. Section 4: 0 may not be decremented.
    if ethertype != ETH_P_NSH or base >> 30 != 0 or words < 2 or len(frame) < ETH_HLEN + 4 * words or index == 0:
        return None
    return HEADERS.pack(source, destination, ethertype, base, path - 1) + frame[HEADERS.size :]


def main(port):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_NSH)) as wire:
        wire.bind((port, ETH_P_NSH))
        while True:
            frame, (_, _, packet_type, _, _) = wire.recvfrom(LARGEST)
            if packet_type != socket.PACKET_OUTGOING and (answer := passed_on(frame)):
                wire.send(answer)


main(sys.argv[1])
