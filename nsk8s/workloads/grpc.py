"""gRPC's health service over cleartext HTTP/2 (grpc.health.v1): the server of stand-ins, and the client of
probes. Loaded when somebody speaks it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable

from h2 import errors, events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from nsk8s.workloads.behaviours import Site
from nsk8s.workloads.peers import Peer

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
"""HealthCheckResponse.ServingStatus."""
UNIMPLEMENTED = "12"
CODES = {"0": "OK", UNIMPLEMENTED: "Unimplemented", "14": "Unavailable", "5": "NotFound"}


def message(body: bytes) -> bytes:
    """A length-prefixed message, not compressed."""
    return b"\0" + struct.pack(">I", len(body)) + body


def texts(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields as text."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


SERVING = message(b"\x08\x01")


class Server(Peer):
    """A connection over which a stand-in says that it is serving, and that it implements nothing else."""

    def __init__(
        self, site: Site, log: Callable[[str], None], members: set[Peer], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(site, log, members, loop)
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._paths: dict[int, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings."""
        super().connection_made(transport)
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Answer requests that are complete."""
        self.last = self._loop.time()
        try:
            for event in self._h2.receive_data(data):
                self._happened(event)
        except ProtocolError:
            self._flush()
            if self._transport:
                self._transport.close()
            return
        self._flush()

    def _happened(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._paths[event.stream_id] = texts(event.headers).get(":path", "")
        elif isinstance(event, events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamReset):
            self._paths.pop(event.stream_id, None)
        elif isinstance(event, events.StreamEnded):
            self._answer(event.stream_id, self._paths.pop(event.stream_id, ""))
        elif isinstance(event, events.ConnectionTerminated) and self._transport:
            self._transport.close()

    def _answer(self, stream: int, path: str) -> None:
        self._log(f"gRPC {path}\n")
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if path not in (CHECK, WATCH):
            what = f"{self._site.image} is a stand-in here: it implements grpc.health.v1 alone"
            trailers = [("grpc-status", UNIMPLEMENTED), ("grpc-message", what)]
            self._h2.send_headers(stream, [*head, *trailers], end_stream=True)
            return
        self._h2.send_headers(stream, head)
        self._h2.send_data(stream, SERVING)
        if path == CHECK:
            self._h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def _flush(self) -> None:
        if self._transport and (data := self._h2.data_to_send()):
            self._transport.write(data)


class Unhealthy(Exception):
    """The answer was none, or not SERVING; the text is the kubelet's (pkg/probe/grpc)."""


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, service: str) -> None:
    """Ask whether `service` is healthy. Raises Unhealthy, OSError."""
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    stream = h2.get_next_available_stream_id()
    name = service.encode()
    head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", CHECK),
        (":authority", host),
        ("content-type", "application/grpc"),
        ("user-agent", "kube-probe/1.33"),
        ("te", "trailers"),
    ]
    h2.send_headers(stream, head)
    body = b"\x0a" + bytes([len(name)]) + name if name else b""
    h2.send_data(stream, message(body), end_stream=True)
    writer.write(h2.data_to_send())
    headers: dict[str, str] = {}
    received = b""
    while True:
        data = await reader.read(65536)
        if not data:
            raise Unhealthy("error: health rpc probe failed: rpc error: code = Unavailable desc = EOF")
        try:
            happened = h2.receive_data(data)
        except ProtocolError as error:
            why = f"rpc error: code = Unavailable desc = {error}"
            raise Unhealthy(f"error: health rpc probe failed: {why}") from error
        for event in happened:
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                headers |= texts(event.headers)
            elif isinstance(event, events.DataReceived):
                received += event.data
            elif isinstance(event, events.StreamReset):
                reset = errors.ErrorCodes(event.error_code or 0).name
                raise Unhealthy(f"error: health rpc probe failed: stream terminated: {reset}")
            elif isinstance(event, events.StreamEnded):
                _judge(headers, received)
                return
        writer.write(h2.data_to_send())


def _judge(headers: dict[str, str], received: bytes) -> None:
    code = headers.get("grpc-status", "2")
    if code == UNIMPLEMENTED:
        why = headers.get("grpc-message", "")
        raise Unhealthy(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + why
        )
    if code != "0":
        why = f"code = {CODES.get(code, code)} desc = {headers.get('grpc-message', '')}"
        raise Unhealthy(f"error: health rpc probe failed: rpc error: {why}")
    body = received[5:]
    number = body[1] if len(body) >= 2 and body[0] == 8 else 0
    if number != 1:
        status = STATUSES[number] if number < len(STATUSES) else str(number)
        raise Unhealthy(f'service unhealthy (responded with "{status}")')
