"""Ops explained step by step: the terms of one output element, or of one gradient element, as text."""
