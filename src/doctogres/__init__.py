"""doctogres: from a folder of histology slides to a registered, served subtype classifier."""

from typing import Final

__version__: Final = "0.1.0"
