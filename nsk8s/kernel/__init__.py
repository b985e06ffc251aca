"""The only room that changes the machine; no Kubernetes words.

machine        the door: apply operations, observe namespaces, ask for the rule set's generation
├── batch          one apply: groups by namespace, new namespaces wired and held in one go
│   └── rtnetlink      requests for values, as bytes
├── observation    dumps as values
├── iptables       restore and save in many namespaces at once (programs)
├── nftables       transactions in many namespaces, and tables as nft says them
│   └── nfmessages     commands as bytes: nfexpressions for rules, nfdata for what they are made of
├── conntrack      forgetting stale UDP flows
├── sysctl         its files
├── sandboxes      pause processes and their names in /run/netns
└── netlink        messages, batches without acknowledgement, dumps
holder         PID 1 of a cluster; `down`
├── namespaces     unshare, setns, mount
└── pause          the program that does nothing
processes      programs inside sandboxes
probe, host    what this host has, and what its own network looks like
"""
