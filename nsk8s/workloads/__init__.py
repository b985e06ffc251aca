"""What runs in pods: an image's name -> a real process, or a stand-in (`images`); the one process that
serves all stand-ins of a cluster (`standin_server`), what they answer (`behaviours`), and its client in the
control plane (`standins`)."""
