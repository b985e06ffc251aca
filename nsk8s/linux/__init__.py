"""What one kernel network namespace can hold, as values; no Kubernetes words, no I/O.

`values` names the nouns, `model` is the kernel that applies operations to them, `state` compares them, `text`
writes them as the commands a person would type (and reads them back), `iptables` does all that for rule sets,
`nftables` (with `nfttext`) for the tables of nft(8).
"""
