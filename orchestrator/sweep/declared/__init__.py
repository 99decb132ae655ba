"""What a sweep file declares before anything is seen: how its arms are compared, and when its seeds grow.

Front door: ``read_comparison`` and ``read_growth`` read what a ledger keeps of it.
What must hold: none of it takes part in a trial's identity; it is light to import, for tables read it.
"""

from orchestrator.sweep.declared.comparison import ComparisonSettings, read_comparison
from orchestrator.sweep.declared.growing_seeds import GrowingSeeds, read_growth

__all__ = ["ComparisonSettings", "GrowingSeeds", "read_comparison", "read_growth"]
