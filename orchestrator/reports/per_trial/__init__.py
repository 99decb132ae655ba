"""A sweep as files that others can use: a row a trial, what rungs reported, and what the tables take beside them.

Front door: ``SweepData`` (``sweep_data``) is all that tables are made of, from a ledger or from these files:
``trials_csv`` has a row a trial, ``curves_csv`` the rungs, ``sweep_json`` what is left. What must hold: a table made of
the files is that of the ledger, to the last byte; what is read may be a stranger's, and is checked value by value.
"""

__all__: list[str] = []
