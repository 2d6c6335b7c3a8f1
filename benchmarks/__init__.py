"""Comparisons of jaxconv with other frameworks, and of Python environments."""
