"""The network and its training, in tensors: torch only."""
