from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsk8s.apiserver.streams import channels
from nsk8s.apiserver.streams.channels import ChannelError, Said, decode, encode

PROTOCOLS = ("", channels.V1, channels.V1_BASE64, channels.V4, channels.V4_BASE64, channels.V5)


@given(st.sampled_from(PROTOCOLS), st.integers(0, 4), st.binary(max_size=300))
def test_what_is_encoded_can_be_decoded(protocol: str, channel: int, data: bytes) -> None:
    assert decode(protocol, encode(protocol, channel, data)) == Said(channel, data)


def test_the_end_of_a_channel_is_a_word_of_version_5_alone() -> None:
    assert decode(channels.V5, b"\xff\x00") == Said(0, b"", last=True)
    assert decode(channels.V4, b"\xff\x00") == Said(255, b"\x00")
    with pytest.raises(ChannelError):
        decode(channels.V5, b"\xff")


def test_text_is_taken_as_its_bytes() -> None:
    """As the Python client sends it."""
    assert decode(channels.V4, "\x00grüße") == Said(0, "grüße".encode())


def test_an_empty_message_says_nothing() -> None:
    assert [decode(protocol, b"") for protocol in PROTOCOLS] == [None] * len(PROTOCOLS)


@given(st.sampled_from(PROTOCOLS), st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_any_message_is_said_or_refused(protocol: str, message: bytes | str) -> None:
    with suppress(ChannelError):
        decode(protocol, message)
