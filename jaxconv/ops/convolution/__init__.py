"""Convolution: one public function, its lowerings, its gradients as primitives, and transposed convolution."""
