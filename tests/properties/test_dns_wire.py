"""Whatever arrives on port 53: an answer, or silence, and never an exception."""

from __future__ import annotations

import dns.edns
import dns.message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nsk8s.workloads.dns.answer import Ask
from tests.unit.workloads.dns.zones import answers

NAMES = st.sampled_from(
    ["web.shop.svc.cluster.local", "db.shop.svc.cluster.local", "x.", "2.1.244.10.in-addr.arpa"]
)
KINDS = st.sampled_from(
    ["A", "AAAA", "SRV", "PTR", "TXT", "ANY", "AXFR", "HTTPS", "OPT", "TSIG", "SOA", "NS"]
)
ANSWERS = answers()


@st.composite
def queries(draw: st.DrawFn) -> bytes:
    """A query with some of its bytes changed, cut off or added."""
    query = dns.message.make_query(draw(NAMES), draw(KINDS))
    if draw(st.booleans()):
        options: list[dns.edns.Option] = []
        if draw(st.booleans()):
            options.append(dns.edns.GenericOption("COOKIE", draw(st.binary(max_size=40))))
        query.use_edns(0, payload=draw(st.integers(0, 65535)), options=options)
    wire = bytearray(query.to_wire())
    for _ in range(draw(st.integers(0, 6))):
        wire[draw(st.integers(0, len(wire) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(wire)))
    return bytes(wire[:cut] if draw(st.booleans()) else wire) + draw(st.binary(max_size=20))


@settings(max_examples=400, deadline=None)
@given(st.one_of(queries(), st.binary(max_size=300)), st.booleans())
@example(b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1", False)  # a name that points to itself
def test_any_bytes_get_an_answer_or_silence(wire: bytes, tcp: bool) -> None:
    reply = ANSWERS.reply(wire, tcp=tcp)
    if reply is None:
        assert len(wire) < 12 or wire[2] & 0x80
        return
    assert not isinstance(reply, Ask)
    assert reply[:2] == wire[:2]
    assert reply[2] & 0x80
    assert len(reply) <= (65535 if tcp else 4096 if len(wire) > 28 else 512)
    assert ANSWERS.reply(wire, tcp=tcp) is not None
