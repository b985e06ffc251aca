"""Bytes in, bytes out: read by dnspython as a client would."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest

from nsk8s.workloads.dns.answer import Answers, Ask, refusal
from nsk8s.workloads.dns.corefile import upstreams
from nsk8s.workloads.dns.zone import Zone
from tests.unit.workloads.dns.zones import answers, endpoint, piece, service

WEB = "web.shop.svc.cluster.local"
DB = "db.shop.svc.cluster.local"


def ask(made: Answers, query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
    answer = made.reply(query.to_wire(), tcp=tcp)
    assert isinstance(answer, bytes)
    read = dns.message.from_wire(answer)
    assert read.id == query.id
    assert read.flags & dns.flags.QR
    return read


def addresses(message: dns.message.Message) -> list[str]:
    return [str(item) for rrset in message.answer for item in rrset]


def big(count: int) -> Answers:
    """A headless service with `count` endpoints."""
    made = answers()
    made.zone.put_service(service("big"))
    made.zone.put_slice(piece("big", *(endpoint(f"10.244.{n >> 8}.{n & 255}") for n in range(1, count + 1))))
    return made


def test_an_answer_is_authoritative_and_offers_no_recursion() -> None:
    read = ask(answers(), dns.message.make_query(WEB, "A"))
    assert dns.flags.to_text(read.flags) == "QR AA RD"
    assert addresses(read) == ["10.96.0.50"]
    assert read.edns < 0


def test_the_second_answer_is_the_first_with_another_id() -> None:
    made = answers()
    first, second = (ask(made, dns.message.make_query(WEB, "A", id=number)) for number in (1, 2))
    assert second.to_wire()[2:] == first.to_wire()[2:]


def test_the_letters_of_the_question_come_back_as_they_were() -> None:
    made = answers()
    for name in ("Web.SHOP.svc.Cluster.Local.", "wEB.shop.SVC.cluster.local."):
        read = ask(made, dns.message.make_query(name, "A"))
        assert read.question[0].name.to_text() == read.answer[0].name.to_text() == name
        assert addresses(read) == ["10.96.0.50"]


def test_the_endpoints_of_a_headless_service_come_in_any_order() -> None:
    made = answers()
    orders = [addresses(ask(made, dns.message.make_query(DB, "A"))) for _ in range(60)]
    assert {tuple(sorted(order)) for order in orders} == {("10.244.1.2", "10.244.2.2", "10.244.2.3")}
    assert len(set(map(tuple, orders))) == 6


def test_what_changes_is_answered_at_once() -> None:
    made = answers()
    ask(made, dns.message.make_query(WEB, "A"))
    made.zone.put_service(service("web", "10.96.0.51"))
    made.forget()
    assert addresses(ask(made, dns.message.make_query(WEB, "A"))) == ["10.96.0.51"]


def test_nothing_there_and_no_such_record_have_the_soa() -> None:
    for name, kind, code in ((WEB, "MX", "NOERROR"), ("none.shop.svc.cluster.local", "A", "NXDOMAIN")):
        read = ask(answers(), dns.message.make_query(name, kind))
        assert dns.rcode.to_text(read.rcode()) == code
        assert not read.answer
        assert str(read.authority[0]).startswith("cluster.local. 30 IN SOA ns.dns.cluster.local. ")


def test_other_names_are_refused_or_asked_elsewhere() -> None:
    made = answers()
    query = dns.message.make_query("example.com", "A")
    assert ask(made, query).rcode() == dns.rcode.REFUSED
    made.forwards = True
    assert made.reply(query.to_wire()) == Ask(query.to_wire())
    reverse = dns.message.make_query("1.1.1.1.in-addr.arpa", "PTR")
    assert made.reply(reverse.to_wire()) == Ask(reverse.to_wire())
    made.forwards = False
    assert ask(made, reverse).rcode() == dns.rcode.NXDOMAIN


def test_an_alias_that_leads_outside_is_completed_by_the_upstreams() -> None:
    made = answers()
    query = dns.message.make_query("outside.shop.svc.cluster.local", "A")
    alone = ask(made, query)
    assert [str(rrset) for rrset in alone.answer] == [
        "outside.shop.svc.cluster.local. 30 IN CNAME example.com."
    ]
    made.forwards = True
    made.forget()
    asked = made.reply(query.to_wire())
    assert isinstance(asked, Ask)
    assert asked.target == "example.com."
    upstream = dns.message.make_response(dns.message.make_query("example.com", "A"))
    upstream.answer = [dns.rrset.from_text("example.com.", 60, "IN", "A", "192.0.2.7")]
    read = dns.message.from_wire(made.finish(asked, upstream.to_wire()))
    assert addresses(read) == ["example.com.", "192.0.2.7"]
    broken = dns.message.from_wire(made.finish(asked, b"nonsense"))
    assert addresses(broken) == ["example.com."]


# --- sizes and EDNS -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "most"), [(0, 29), (512, 29), (1232, 73), (4096, 100)])
def test_what_does_not_fit_is_cut_and_says_so(size: int, most: int) -> None:
    query = dns.message.make_query("big.shop.svc.cluster.local", "A")
    if size:
        query.use_edns(0, payload=size)
    made = big(100)
    wire = made.reply(query.to_wire())
    assert isinstance(wire, bytes)
    assert len(wire) <= max(512, size)
    read = dns.message.from_wire(wire)
    assert bool(read.flags & dns.flags.TC) == (most < 100)
    assert most - 2 <= len(addresses(read)) <= most
    whole = ask(made, query, tcp=True)
    assert not whole.flags & dns.flags.TC
    assert len(addresses(whole)) == 100


def test_edns_is_answered_in_kind() -> None:
    query = dns.message.make_query(WEB, "A", use_edns=0, payload=4096, want_dnssec=True)
    read = ask(answers(), query)
    assert (read.edns, read.payload, read.ednsflags & dns.flags.DO) == (0, 4096, dns.flags.DO)


def test_a_cookie_comes_back_and_no_other_version_is_known() -> None:
    cookie = dns.edns.GenericOption("COOKIE", b"12345678")
    query = dns.message.make_query(WEB, "A", use_edns=0, options=[cookie])
    made = answers()
    assert ask(made, query).options[0].to_wire() == b"12345678"
    other = dns.message.make_query(DB.upper(), "SRV", use_edns=0, options=[cookie]).to_wire()
    at_once, apart = made.reply(other), made._make(other, False)
    assert at_once is not None
    assert isinstance(at_once, bytes)
    assert not isinstance(apart, bytes | Ask | None)
    assert at_once == other[:2] + apart.head, "as dnspython writes it"
    query.use_edns(1)
    assert ask(made, query).rcode() == dns.rcode.BADVERS


# --- what is no question ------------------------------------------------------------------------------


def test_before_the_first_sync_nobody_is_told_that_names_are_missing() -> None:
    made = Answers(Zone(), lambda _: None)
    assert ask(made, dns.message.make_query(WEB, "A")).rcode() == dns.rcode.SERVFAIL


def test_other_classes_and_operations_are_not_done() -> None:
    made = answers()
    assert ask(made, dns.message.make_query("version.bind", "TXT", "CH")).rcode() == dns.rcode.REFUSED
    query = dns.message.make_query(WEB, "A")
    query.set_opcode(dns.opcode.STATUS)
    reply = made.reply(query.to_wire())
    assert isinstance(reply, bytes)
    assert (reply[3] & 15, len(reply)) == (dns.rcode.NOTIMP, 12)


def test_no_question_two_questions_and_nonsense_are_malformed() -> None:
    made = answers()
    none = dns.message.QueryMessage(id=5)
    two = dns.message.make_query(WEB, "A")
    two.question *= 2
    cut = dns.message.make_query(WEB, "A").to_wire()[:-3]
    for wire in (none.to_wire(), two.to_wire(), cut):
        reply = made.reply(wire)
        assert isinstance(reply, bytes)
        assert (reply[:2], reply[3] & 15) == (wire[:2], dns.rcode.FORMERR)


def test_answers_and_scraps_get_no_answer() -> None:
    made = answers()
    answer = dns.message.make_response(dns.message.make_query(WEB, "A")).to_wire()
    for wire in (b"", b"x", b"\0" * 11, answer):
        assert made.reply(wire) is None


def test_a_refusal_repeats_the_question() -> None:
    query = dns.message.make_query("example.com", "A")
    read = dns.message.from_wire(refusal(query.to_wire(), dns.rcode.SERVFAIL))
    assert (read.rcode(), read.question) == (dns.rcode.SERVFAIL, query.question)


def test_the_corefile_names_the_upstreams() -> None:
    text = ".:53 {\n  forward . 172.18.0.5 fd00::5 172.18.0.5 /etc/resolv.conf tls://9.9.9.9 {\n  }\n"
    assert upstreams(text) == ("172.18.0.5", "fd00::5")
    assert upstreams("# forward . 1.2.3.4\nforward example.org 1.2.3.4\n") == ()
