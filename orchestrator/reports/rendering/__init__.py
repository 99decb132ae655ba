"""Tables and sentences as text: cells, the terminal's tables, Markdown. A row means the same in all of them."""

__all__: list[str] = []
