"""The Kubernetes REST API over the store: an honest subset in the API's own shape.

`server` speaks HTTP, `addressing` says what a path means, `resources` answers for objects, `watching` follows
changes, `printers` print as a real server does for kubectl, `discovery` tells what there is.
"""
