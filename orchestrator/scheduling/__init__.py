"""Which trial next, whether it goes on, what it may cost; and the same, simulated."""
