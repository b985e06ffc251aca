"""What `scripts/bench` runs: figures beside a peer's in the same run, never tests."""
