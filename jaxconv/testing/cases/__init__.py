"""Cases to compare: an op with random arguments and all of its implementations."""
