"""The program ``jaxconv``: its commands, and the functions that run them."""

from jaxconv.cli.entry_point import console, main

__all__ = ["console", "main"]
