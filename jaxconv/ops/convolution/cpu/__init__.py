"""Lowerings of convolution for a CPU, and the measured table that chooses among them."""
