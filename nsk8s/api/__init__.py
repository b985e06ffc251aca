"""The user's nouns: Kubernetes objects and the Cluster document; no sockets, no clocks, no Linux words.

`manifest` reads YAML and remembers where everything stood; `cluster` turns the Cluster document into a
`Topology`; `kinds` is the table of resources; `types` are typed views of the objects that nsk8s acts on;
`defaults` and `validation` do what an API server does before it stores; `selectors` match labels.

An object itself is a plain dict, exactly as the user wrote it plus what the server adds.
"""
