"""kube-proxy's answers about itself, to the byte."""

from __future__ import annotations

from nsk8s.workloads.kubeproxy import Tells, answer

NOW = "2026-11-27 19:12:06.123456789 +0000 UTC m=+12.345678901"
NOSNIFF = ("X-Content-Type-Options", "nosniff")
JSON, TEXT = ("Content-Type", "application/json"), ("Content-Type", "text/plain; charset=utf-8")


def test_health_check_of_a_service() -> None:
    body = """{
\t"service": {
\t\t"namespace": "default",
\t\t"name": "lb"
\t},
\t"localEndpoints": %d,
\t"serviceProxyHealthy": true
}"""
    for count, status in ((2, 200), (0, 503)):
        tells: Tells = ("service", "default", "lb", count)
        weight = ("X-Load-Balancing-Endpoint-Weight", str(count))
        for path in ("/", "/healthz", "/whatever"):
            assert answer(tells, path, NOW) == (status, (JSON, NOSNIFF, weight), body % count)


def test_its_own_health_and_mode() -> None:
    times = f'"lastUpdated": "{NOW}","currentTime": "{NOW}"'
    assert answer(("healthz",), "/healthz", NOW) == (
        200,
        (JSON, NOSNIFF),
        f'{{{times}, "nodeEligible": true}}',
    )
    assert answer(("healthz",), "/livez", NOW) == (200, (JSON, NOSNIFF), f"{{{times}}}")
    assert answer(("metrics", "iptables"), "/proxyMode", NOW) == (200, (TEXT, NOSNIFF), "iptables")
    assert answer(("metrics", "iptables"), "/healthz", NOW) == (200, (TEXT, NOSNIFF), "ok")
    missing = 404, (TEXT, NOSNIFF), "404 page not found\n"
    assert answer(("healthz",), "/", NOW) == answer(("metrics", "iptables"), "/livez", NOW) == missing
