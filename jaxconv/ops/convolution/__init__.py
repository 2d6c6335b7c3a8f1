"""Convolution: one public function, its lowerings, its three passes as jax primitives, and transposed convolution."""
