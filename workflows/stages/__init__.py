"""One stage each: wiring, no maths."""
