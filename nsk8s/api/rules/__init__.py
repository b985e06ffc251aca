"""What must hold for the objects of each kind, as the API server's `pkg/apis/*/validation` has it.

Every rule takes a typed view, so types are right already, and adds to the `Findings` it is given.
"""
