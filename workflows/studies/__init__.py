"""Studies: many runs that are made to be compared, and what is said of them together."""
