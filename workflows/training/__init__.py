"""The training loop of one worker, its checkpoints and its history."""
