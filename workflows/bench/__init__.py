"""The same work, ours and the peers, timed in one run."""
