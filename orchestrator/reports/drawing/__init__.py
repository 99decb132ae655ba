"""Drawings as values, and how they become SVG and PDF.

Front door: ``Drawing`` of ``shapes``, ``render_svg``, ``render_pdf``. A figure is laid out once, as lines, areas, marks
and texts at their places; a page shows it in the colours of its reader's screen, a paper in its own.
What must hold: the same drawing makes the same bytes; texts are data, and nothing in them is obeyed.
"""

__all__: list[str] = []
