"""Places in a results folder that a run writes to and deletes from: they must lie in it, and not behind a link.

A results folder may come from others. A link in it could point anywhere, and what a run does to the files in such a
place it would do there: files of the user's would be emptied, replaced or deleted. The results folder itself may be a
link, since its path is the user's own.
"""

from __future__ import annotations

from pathlib import Path

from specvit.errors import SpecsweepError


def refuse_link(path: Path) -> None:
    """Make sure that a place is no link; it need not exist.

    Raises:
        SpecsweepError: If it is one; the text names it and where it leads.
    """
    if path.is_symlink():
        raise SpecsweepError(
            f"{path}: must not be a link (it leads to {path.readlink()}), for this place is written to and deleted "
            "from; delete the link, or link the whole results folder"
        )
