"""Stage "tiles": the tiles of convolutions against each other."""

from .ours import tile_cases as cases

__all__ = ["cases"]
