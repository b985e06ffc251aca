"""Witnesses: they look, and configure nothing. `capture` is tcpdump inside a namespace for people, `packets`
a socket and scapy for tests, `connections` tries who reaches whom. None knows what the data plane was told to
do."""
