"""What a control plane decides; pure: no clock, randomness, I/O, threads, and no Linux words.

`store` holds the objects, `registry` is what an API server does to a request, the controllers complete
what users wrote (`control` runs them until nothing changes), `kubelet` decides what happens to the
containers of each pod: events in, commands out. `policy` says what network policies mean.
"""
