"""A run as one page that opens from the disk: what its network computed, learned and looked at.

Each file makes a section or two of :class:`jaxconv.report.context.ReportContext`; ``write`` has their order, ``page``
makes HTML of them, with ``page.html.j2``, ``page.css`` and ``page.js``.
"""

from jaxconv.report.builder import Report, write_report

__all__ = ["Report", "write_report"]
