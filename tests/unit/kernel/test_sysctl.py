from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nsk8s.kernel import sysctl


def test_a_value_is_read_with_single_blanks() -> None:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert sysctl.read("net.ipv4.ip_local_port_range") == " ".join(text.split())


def test_dots_in_a_device_name_are_written_as_slashes() -> None:
    with pytest.raises(FileNotFoundError) as missing:
        sysctl.read("net.ipv4.conf.no/such.forwarding")
    assert missing.value.filename == "/proc/sys/net/ipv4/conf/no.such/forwarding"


def test_a_key_that_is_not_there_cannot_be_written() -> None:
    with pytest.raises(OSError, match="no_such_key") as refused:
        sysctl.write("net.ipv4.no_such_key", "1")
    assert refused.value.errno in (errno.ENOENT, errno.EACCES)
