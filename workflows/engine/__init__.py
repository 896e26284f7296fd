"""What is there, what must be made and in which order: keys, plans, locks, runs."""
