"""How trials are expanded, dispatched, judged, recorded and tabulated.

Front doors: ``run.run_sweep`` (from a sweep to its tables), ``plan.make_plan``, ``power.measure_power``,
``control`` (what commands to a running sweep do), ``publish.publish``, ``diagnose.diagnose_model``; ``cli`` is the
command line. Rooms import from floors below only (see CONTRIBUTING); ``execution.ray_cluster`` alone imports ray,
``ledger`` alone speaks SQL. Importing this imports nothing.
"""

__all__: list[str] = []
