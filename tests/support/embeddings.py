"""What `mbt embed` leaves."""

from pathlib import Path

import numpy as np


def files_in(path: Path) -> list[str]:
    """Returns the names of the embedded files, without their folders."""
    with np.load(path) as saved:
        return [Path(file).name for file in saved["files"]]
