"""What a network is and does, as functions of it."""

from jaxconv.explain.arithmetic import Arithmetic, arithmetic
from jaxconv.explain.summary import Row, Summary, summarize

__all__ = ["Arithmetic", "Row", "Summary", "arithmetic", "summarize"]
