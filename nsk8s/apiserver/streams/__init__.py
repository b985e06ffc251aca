"""exec, attach, port-forward, logs and proxies: what flows between a client and a pod.

A client's connection speaks SPDY/3.1 (`spdy`), WebSocket channels (`channels`), or SPDY inside WebSocket;
`upgrade` agrees on one of them and makes a `connection` of it, whose streams are all alike. `session`
joins the streams of exec and attach to a process, `portforward` to sockets. `proxy` passes
HTTP on, and `passing` what HTTP has been upgraded to. `access` says what all of them need of the machine.
"""
