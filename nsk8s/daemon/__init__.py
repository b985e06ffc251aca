"""The control plane of one cluster: `loop` decides (events in, commands out, no I/O), the rest acts.

`server` wires it together and is the single writer of the store; `network` keeps the kernel at the
compiled state, `bringup` is what `up` asks for, `journal` makes the store durable, `rehearsal` plays a change
through without a kernel, `policies` answers what network policies allow, `launch` starts the process.

`runtime` keeps the containers: `runs` is what it knows of them, `places` where they run, `shims` their
processes; `hooks` and `prober` ask them by `commandrunner` and `probe`. `podaccess` lets users in.

It may be killed at any instant: packets keep flowing, and the next start adopts what is there.
"""
