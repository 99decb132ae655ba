"""The command line: parse, print, exit code.

``app.main`` is the entry point, and the only place that turns errors into messages and exit codes. ``run`` runs trials,
``control`` commands a running sweep, ``watch`` looks at one, ``export`` hands one over; ``arguments`` and
``console`` are what they share.

What must hold: the work is done elsewhere, and imported by the command that needs it, so that ``--version``, ``plan``
and ``status`` wait for nothing heavy; all printing for users goes through ``console``.
"""

from orchestrator.cli.app import main

__all__ = ["main"]
