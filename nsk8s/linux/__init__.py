"""What one kernel network namespace can hold, as values; no Kubernetes words, no I/O.

`values` names the nouns, `state` compares and applies them, `text` writes them as the commands a
person would type (and reads them back), `iptables` does the same for rule sets.
"""
