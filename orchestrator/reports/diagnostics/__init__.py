"""What is inside the backbones, block by block: ``csv_file`` writes the readings, ``figure`` draws them."""

__all__: list[str] = []
