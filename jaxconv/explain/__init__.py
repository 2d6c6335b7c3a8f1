"""What a network is and does, as functions of it."""

from jaxconv.explain.summary import Row, Summary, summarize

__all__ = ["Row", "Summary", "summarize"]
