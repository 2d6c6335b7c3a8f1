"""Cases of comparison: one operation, its arguments, and all ways to compute it."""
