"""HTML report of a training run: what its network computed, learned and responds to, in one self-contained file.

The ``*_sections`` modules build sections from a :class:`jaxconv.report.context.ReportContext`. ``builder`` orders them,
and ``page`` renders them as HTML with ``page.html.j2``, ``page.css`` and ``page.js``.
"""

from jaxconv.report.builder import Report, write_report

__all__ = ["Report", "write_report"]
