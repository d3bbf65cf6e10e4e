"""Self-contained HTML: reports of single steps, and the page of a whole run.

Example:
    >>> Report("Training", "fashion-mnist").text("Loss fell **every** epoch.").title
    'Training'
"""

from assay.reports.html import Report

__all__ = ["Report"]
