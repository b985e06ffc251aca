from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsk8s.apiserver.streams import spdy
from nsk8s.apiserver.streams.spdy import Data, Finished, Opened, Ponged, Reset, Spdy, SpdyError


class Client:
    """The other side, as moby/spdystream writes it."""

    def __init__(self) -> None:
        self._pack = zlib.compressobj(zdict=spdy.DICTIONARY)
        self._unpack = zlib.decompressobj(zdict=spdy.DICTIONARY)

    def open(self, stream: int, headers: dict[str, str], flags: int = 0) -> bytes:
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for word in (name, value):
                block += struct.pack(">I", len(word)) + word.encode()
        packed = self._pack.compress(block) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        return control(spdy.SYN_STREAM, struct.pack(">IIBB", stream, 0, 0, 0) + packed, flags)

    def headers(self, reply: bytes) -> bytes:
        return self._unpack.decompress(reply[12:])


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(payload)) + payload


def taken(pieces: Iterable[bytes]) -> list[spdy.Event]:
    server = Spdy()
    return [event for piece in pieces for event in server.receive(piece)]


def conversation() -> bytes:
    client = Client()
    return b"".join(
        (
            client.open(1, {"Streamtype": "error"}, spdy.FIN),
            client.open(3, {"streamType": "stdin", "port": "80"}),
            data(3, b"hello"),
            control(spdy.SETTINGS, bytes(12)),
            control(spdy.WINDOW_UPDATE, bytes(8)),
            control(spdy.PING, struct.pack(">I", 1)),
            control(spdy.PING, struct.pack(">I", 2)),
            data(3, b"", spdy.FIN),
            data(77, b"nobody's"),
            control(spdy.RST_STREAM, struct.pack(">II", 1, spdy.CANCEL)),
            control(spdy.GOAWAY, bytes(8)),
        )
    )


EVENTS = [
    Opened(1, {"streamtype": "error"}),
    Finished(1),
    Opened(3, {"streamtype": "stdin", "port": "80"}),
    Data(3, b"hello"),
    Ponged(control(spdy.PING, struct.pack(">I", 1))),
    Finished(3),
    Data(77, b"nobody's"),
    Reset(1),
]


def test_a_conversation() -> None:
    assert taken([conversation()]) == EVENTS


@given(st.lists(st.integers(1, 60), max_size=40))
def test_however_it_is_cut(cuts: list[int]) -> None:
    said, pieces = conversation(), []
    for cut in cuts:
        pieces.append(said[:cut])
        said = said[cut:]
    assert taken([*pieces, said]) == EVENTS


def test_the_dictionary_is_the_specification_s() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_replies_are_one_zlib_stream() -> None:
    server, client = Spdy(), Client()
    for stream in (1, 3, 5):
        reply = server.reply(stream)
        assert struct.unpack(">HHII", reply[:12]) == (0x8003, spdy.SYN_REPLY, len(reply) - 8, stream)
        assert client.headers(reply) == struct.pack(">I", 0)


@given(st.binary(max_size=5), st.integers(0, 3), st.booleans())
def test_data_comes_in_frames_of_a_bounded_size(rest: bytes, full: int, last: bool) -> None:
    whole = bytes(full * spdy.DATA_SIZE) + rest
    frames = list(Spdy().data(5, whole, last=last))
    assert all(len(frame) <= 8 + spdy.DATA_SIZE for frame in frames)
    events = taken(frames)
    assert b"".join(event.data for event in events if isinstance(event, Data)) == whole
    assert (Finished(5) in events) is last


@pytest.mark.parametrize(
    "nonsense",
    [
        struct.pack(">HHI", 0x8002, 1, 0),
        data(1, b"")[:4] + struct.pack(">I", spdy.FRAME_LIMIT + 1),
        control(spdy.SYN_STREAM, b"short"),
        control(spdy.SYN_REPLY, bytes(4)),
        control(spdy.PING, bytes(5)),
        control(spdy.SYN_STREAM, struct.pack(">IIBB", 1, 0, 0, 0) + b"not zlib"),
        Client().open(2, {}),
        Client().open(0, {}),
        b"GET / HTTP/1.1\r\n\r\n" * 8,
    ],
)
def test_nonsense(nonsense: bytes) -> None:
    with pytest.raises(SpdyError):
        taken([nonsense])


def test_a_stream_is_opened_once() -> None:
    client = Client()
    with pytest.raises(SpdyError, match="stream 3 after 5"):
        taken([client.open(5, {}), client.open(3, {})])


def test_headers_are_bounded_however_well_they_are_packed() -> None:
    with pytest.raises(SpdyError, match="more than"):
        taken([Client().open(1, {"a": "x" * 10 * spdy.HEADERS_LIMIT})])


def test_headers_that_promise_more_than_there_is() -> None:
    pack = zlib.compressobj(zdict=spdy.DICTIONARY)
    packed = pack.compress(struct.pack(">II", 0xFFFF_FFFF, 9)) + pack.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(SpdyError):
        taken([control(spdy.SYN_STREAM, struct.pack(">IIBB", 1, 0, 0, 0) + packed)])


FRAMES = st.one_of(
    st.binary(max_size=200),
    st.builds(control, st.integers(0, 12), st.binary(max_size=80), st.integers(0, 255)),
    st.builds(data, st.integers(0, 2**31 - 1), st.binary(max_size=80), st.integers(0, 255)),
    st.builds(
        lambda stream, headers, flags: Client().open(stream, headers, flags),
        st.integers(0, 9),
        st.dictionaries(st.text("abc", max_size=3), st.text("abc", max_size=3), max_size=3),
        st.integers(0, 3),
    ),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(FRAMES, max_size=12))
def test_any_bytes_are_events_or_one_error(pieces: list[bytes]) -> None:
    with suppress(SpdyError):
        taken(pieces)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_conversation_that_is_damaged(draw: st.DataObject) -> None:
    said = bytearray(conversation())
    for _ in range(draw.draw(st.integers(1, 4))):
        said[draw.draw(st.integers(0, len(said) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(SpdyError):
        taken([bytes(said)])
