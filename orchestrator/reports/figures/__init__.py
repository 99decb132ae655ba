"""What a sweep looks like: forests of intervals, gain against parameters, curves over training.

Front door: ``forest``, ``parameters`` and ``curves`` turn tables and records into drawings, ``paper`` writes them for
papers.
What must hold: a figure shows what its table says, no more; what has no interval has a row all the same.
"""

__all__: list[str] = []
