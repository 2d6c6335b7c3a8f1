"""Command line of jaxconv: ``train``, ``eval``, ``predict`` and the other commands."""

from jaxconv.cli.entry_point import console, main

__all__ = ["console", "main"]
