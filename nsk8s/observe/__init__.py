"""Witnesses: they look, and configure nothing. `capture` is tcpdump inside a namespace for people, `packets`
a socket and scapy for tests, `logs` what containers wrote. None knows what the data plane was told to do."""
