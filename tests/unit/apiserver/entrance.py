"""A served world whose door is TLS on the loopback interface, and clients that knock at it."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nsk8s.apiserver import certificates
from nsk8s.apiserver.authentication import Authenticator, User
from nsk8s.apiserver.certificates import Pair
from nsk8s.apiserver.server import Identify
from nsk8s.daemon.access import loopback
from nsk8s.daemon.pki import Keys
from nsk8s.paths import ClusterPaths
from tests.unit.apiserver.served import DEADLINE, Served, served

Answer = tuple[int, dict[str, Any]]


class Entrance:
    """The door of a served world."""

    def __init__(self, world: Served, keys: Keys, port: int, scratch: Path) -> None:
        self.world = world
        self.keys = keys
        self.port = port
        self._scratch = scratch

    def client(self, name: str, groups: Iterable[str] = (), ca: Pair | None = None) -> ssl.SSLContext:
        """TLS of a client with a certificate of the cluster's CA, or of another one."""
        pair = certificates.client(ca or self.keys.authority(), name, groups)
        file = self._scratch / "client.pem"
        file.write_bytes(pair.certificate + pair.key)
        tls = self.anonymous()
        tls.load_cert_chain(file)
        return tls

    def anonymous(self) -> ssl.SSLContext:
        """TLS of a client without a certificate, which knows the cluster's CA."""
        return ssl.create_default_context(cadata=self.keys.authority().certificate.decode())

    def ask(
        self,
        tls: ssl.SSLContext,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: object = None,
    ) -> Answer:
        """One request on a connection of its own: the code and the decoded answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=DEADLINE)
        try:
            raw = None if body is None else json.dumps(body)
            sent = {"Content-Type": "application/json"} if raw else {}
            connection.request(method, path, raw, {**sent, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else {"text": text.decode()}


@contextmanager
def entrance(
    paths: ClusterPaths, scratch: Path, authenticator: Callable[[Served], Identify] | None = None
) -> Iterator[Entrance]:
    """A served world behind TLS, for as long as the context lasts. It knows no tokens by itself."""
    with served(paths) as world:
        identify = authenticator(world) if authenticator else Authenticator(nobody).identify
        keys = Keys(paths)
        tls = keys.server(["127.0.0.1", "localhost"])
        listening = loopback(paths)
        port = listening.getsockname()[1]
        opening = world.server.serve(listening, identify, tls)
        listener = asyncio.run_coroutine_threadsafe(opening, world.loop).result(DEADLINE)
        try:
            yield Entrance(world, keys, port, scratch)
        finally:
            asyncio.run_coroutine_threadsafe(listener.close(), world.loop).result(DEADLINE)


def nobody(_token: str) -> User | None:
    return None
