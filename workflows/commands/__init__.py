"""What the user can say: each verb of the command line, and what stands behind it."""
