"""A TCP port to listen on, opened as Go's net.Listen opens one."""

from __future__ import annotations

import socket


def listening(address: str, port: int) -> socket.socket:
    """A socket that listens, and does not block, in the network namespace of the calling thread: where
    `address` is empty at every address of both families, or of IPv4 if the kernel has no IPv6. Raises
    OSError."""
    both = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in address else socket.AF_INET
    opened = socket.create_server((address, port), family=family, dualstack_ipv6=both)
    opened.setblocking(False)
    return opened
