"""The report of a sweep as one HTML page, which needs nothing beside it: no network, no script.

Front door: ``SweepReport`` is what it is made of, ``render_page`` makes it; a module for each section.
What must hold: what did not go as planned stands first; every text of a ledger is escaped by ``markup``, whoever wrote
it; the same report makes the same page, of a size that a browser opens at once.
"""

__all__: list[str] = []
