"""Lowerings of convolution for a CPU, and the table of measurements that selects among them."""
