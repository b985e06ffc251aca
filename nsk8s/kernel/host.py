"""What the host's own network looks like, read only: needed to keep out of its way with host access."""

from __future__ import annotations

import socket
import sys

from nsk8s.errors import HostError
from nsk8s.kernel import rtnetlink as rt
from nsk8s.kernel.netlink import Netlink, attributes


def routes() -> list[tuple[str, str]]:
    """(CIDR, interface) of every IPv4 unicast route of the main table but the default one, sorted.

    Needs no root. Raises HostError if the kernel will not say.
    """
    asked = rt.RT.pack(socket.AF_INET, 0, 0, 0, rt.RT_TABLE_MAIN, 0, 0, 0, 0)
    found = set()
    try:
        with Netlink() as netlink:
            for body in netlink.dump(rt.RTM_GETROUTE, asked):
                bits, kind = body[1], body[7]
                fields = attributes(body, rt.RT.size)
                if bits and kind == rt.RTN_UNICAST:
                    index = int.from_bytes(fields.get(rt.RTA_OIF, b""), sys.byteorder)
                    device = socket.if_indextoname(index) if index else ""
                    found.add((f"{socket.inet_ntoa(fields[rt.RTA_DST])}/{bits}", device))
    except OSError as error:
        raise HostError(f"cannot read the host's routes: {error}") from error
    return sorted(found)
