"""Everything that reads recordings and returns one Dataset, and its figure."""
