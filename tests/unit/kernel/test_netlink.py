"""Framing, and a batch's refusals finding their way back to what was asked."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from nsk8s.kernel import rtnetlink
from nsk8s.kernel.netlink import Netlink, attr, attr_text, attr_u8, attr_u32, attributes, message

NOBODY = 0x7FFFFFF0  # an interface that no host has


def test_attributes_are_padded_and_found_again() -> None:
    data = attr_text(1, "eth0") + attr_u8(2, 7) + attr_u32(3, 1500) + attr(4, b"\1\2\3") + attr(0x8005, b"")
    assert len(data) % 4 == 0
    assert attributes(data) == {1: b"eth0\0", 2: b"\7", 3: b"\xdc\5\0\0", 4: b"\1\2\3", 5: b""}
    assert attributes(b"head" + data, 4) == attributes(data)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\0", b"\3\0\1\0", b"\xff\xff\1\0ab"])
def test_broken_attributes_end_the_reading(data: bytes) -> None:
    assert set(attributes(data)) <= {1}


def test_a_message_says_its_length_without_the_padding() -> None:
    raw = message(16, 0x600, 42, b"abcde")
    assert raw.hex() == "15000000" + "1000" + "0106" + "2a000000" + "00000000" + "6162636465" + "000000"


def test_refusals_come_back_by_sequence_number() -> None:
    # Deleting an interface that is not there is harmless, and refused to root and to others alike.
    expected = errno.ENODEV if os.geteuid() == 0 else errno.EPERM
    with Netlink() as netlink:
        refused = netlink.send(rtnetlink.delete_link(number, NOBODY) for number in range(3000))
        assert set(refused) == set(range(3000))
        assert {refusal.errno for refusal in refused.values()} == {expected}
        assert netlink.send([]) == {}


def test_a_dump_lists_everything() -> None:
    with Netlink() as netlink:
        asked = rtnetlink.IFINFO.pack(0, 0, 0, 0, 0)
        bodies = list(netlink.dump(rtnetlink.RTM_GETLINK, asked))
        found = {attributes(body, 16)[rtnetlink.IFLA_IFNAME].rstrip(b"\0").decode() for body in bodies}
    assert found == {name for _, name in socket.if_nameindex()}


def test_a_refused_dump_raises() -> None:
    with Netlink() as netlink, pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        list(netlink.dump(rtnetlink.RTM_GETLINK, b"\0"))


def test_one_object_is_got_or_refused() -> None:
    with Netlink() as netlink:
        body = netlink.get(rtnetlink.RTM_GETLINK, rtnetlink.IFINFO.pack(0, 0, 1, 0, 0))
        assert attributes(body, 16)[rtnetlink.IFLA_IFNAME] == b"lo\0"
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
            netlink.get(rtnetlink.RTM_GETLINK, rtnetlink.IFINFO.pack(0, 0, NOBODY, 0, 0))
