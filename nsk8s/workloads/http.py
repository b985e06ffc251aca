"""One HTTP/1.1 connection to a stand-in: h11 for the protocol, asyncio's transport for the bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate

import h11

from nsk8s.workloads.behaviours import REASONS, Request, Response, Site, access_log, refuse, respond
from nsk8s.workloads.peers import Peer, endpoint

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers (nginx: large_client_header_buffers, 4 of 8 KiB)."""
MAX_BODY = 1024 * 1024
"""Bytes of a request's body (nginx: client_max_body_size)."""

HTTP2 = b"PRI * HTTP/2.0\r\n"
"""How a client begins that speaks HTTP/2 (RFC 9113, 3.4)."""
GENERIC = ("echo",)
"""Behaviours that stand for servers of which nobody knows what they speak."""
LINGER = 5.0
"""Seconds to listen on after a refusal (nginx: lingering_timeout)."""


class Connection(Peer):
    """Answers what `behaviour` answers for `site`."""

    def __init__(
        self,
        behaviour: str,
        site: Site,
        log: Callable[[str], None],
        members: set[Peer],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(site, log, members, loop)
        self._behaviour = behaviour
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._client = self._local = ("", 0)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._writable = True
        self._lingering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember who is there, and where."""
        super().connection_made(transport)
        self._client = endpoint(transport.get_extra_info("peername"))
        self._local = endpoint(transport.get_extra_info("sockname"))

    def pause_writing(self) -> None:
        """The client does not read: stop answering, and reading."""
        self._writable = False
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable = True
        if self._transport:
            self._transport.resume_reading()
        self._advance()

    def data_received(self, data: bytes) -> None:
        """Feed h11."""
        self.last = self._loop.time()
        if data.startswith(HTTP2) and self._request is None and self._behaviour in GENERIC:
            self._become_grpc(data)
            return
        if self._lingering or self._http.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR):
            return
        self._http.receive_data(data)
        self._advance()

    def _become_grpc(self, data: bytes) -> None:
        """It is HTTP/2, by prior knowledge: leave it to who speaks that."""
        from nsk8s.workloads.grpc import Server

        transport, self._transport = self._transport, None
        self._members.discard(self)
        if transport is not None:
            peer = Server(self._site, self._log, self._members, self._loop)
            transport.set_protocol(peer)
            peer.connection_made(transport)
            peer.data_received(data)

    def eof_received(self) -> bool:
        """The client has said all, and all of it is answered: close when that is sent."""
        return False

    def _advance(self) -> None:
        """Go on until data is missing, or the client does not take our answers."""
        while self._writable and self._transport and not self._lingering and not self._transport.is_closing():
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint)
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_BODY:
                    self._refuse(413)
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
            elif isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            elif event is h11.PAUSED:
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    self._transport.close()
                    return
                self._http.start_next_cycle()

    def _answer(self) -> None:
        event = self._request
        assert event is not None
        request = Request(
            method=event.method.decode("latin-1"),
            target=event.target.decode("latin-1"),
            version=event.http_version.decode("latin-1"),
            headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers),
            client=self._client[0],
            client_port=self._client[1],
            port=self._local[1],
            body=self._body.decode("utf-8", "replace"),
        )
        response = respond(self._behaviour, self._site, request)
        # The line is there before the client has its answer: who has seen the answer finds it in the log.
        when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        self._log(access_log(request, response, when))
        self._respond(response)

    def _respond(self, response: Response, *, close: bool = False) -> None:
        headers = [*response.headers, ("Date", formatdate(usegmt=True))]
        headers.append(("Content-Length", str(len(response.body))))
        if close or self._http.their_http_version == b"1.0":
            headers.append(("Connection", "close"))
        reason = REASONS.get(response.status, "").encode()
        self._send(h11.Response(status_code=response.status, headers=headers, reason=reason))
        if self._http.our_state is h11.SEND_BODY:
            head = self._request is not None and self._request.method == b"HEAD"
            if not head:
                self._send(h11.Data(data=response.body))
            self._send(h11.EndOfMessage())
        if self._http.our_state is h11.MUST_CLOSE and self._transport and not self._lingering:
            self._transport.close()

    def _refuse(self, status: int) -> None:
        """Answer what is no request, as far as the protocol allows, and close.

        Not at once: closing with unread data resets the connection, and the client loses the answer
        (nginx: lingering_close).
        """
        self._lingering = self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)
        if self._lingering:
            self._request = None
            self._respond(refuse(self._behaviour, status), close=True)
        if self._transport and self._lingering:
            self._transport.write_eof()
            self._loop.call_later(LINGER, self.abort)
        elif self._transport:
            self._transport.close()

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data and self._transport:
            self._transport.write(data)
