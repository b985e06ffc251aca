"""A small DNS server for somebody outside the cluster: ``python -m tests.netns.upstream`` listens on port 53,
UDP and TCP, says ``ready``, and answers for example.com until it is killed."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

RECORDS = {
    "host.example.com.": ("A", ["192.0.2.7"]),
    "big.example.com.": ("TXT", [f'"{number:03d}{"x" * 200}"' for number in range(20)]),
    "7.2.0.192.in-addr.arpa.": ("PTR", ["host.example.com."]),
}


def answer(wire: bytes, size: int) -> bytes:
    """What it says; cut to `size`."""
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    name = query.question[0].name.to_text().lower()
    kind, values = RECORDS.get(name, ("", []))
    if not kind:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif kind == dns.rdatatype.to_text(query.question[0].rdtype):
        response.answer = [dns.rrset.from_text(name, 60, "IN", kind, *values)]
    return response.to_wire(max_size=size, prefer_truncation=True)


def by_tcp(listener: socket.socket) -> None:
    """One question for each connection."""
    while True:
        accepted, _ = listener.accept()
        with accepted, accepted.makefile("rwb") as stream:
            length = int.from_bytes(stream.read(2), "big")
            made = answer(stream.read(length), 65535)
            stream.write(len(made).to_bytes(2, "big") + made)


def main() -> None:
    """Serve for ever."""
    listener = socket.create_server(("0.0.0.0", 53))
    threading.Thread(target=by_tcp, args=(listener,), daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("0.0.0.0", 53))
        print("ready", flush=True)  # noqa: T201 (for whoever started it)
        while True:
            wire, sender = opened.recvfrom(65535)
            opened.sendto(answer(wire, 512), sender)


if __name__ == "__main__":
    main()
