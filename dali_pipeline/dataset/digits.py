"""The embedded data set: scikit-learn's handwritten digits, written once as JPEG class folders.

1,797 real digits of 43 writers (UCI, Alpaydin and Kaynak 1998), 8×8 grey levels, enlarged to 32×32.
Every fifth is held out: 1,437 to train on, 360 to validate.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from hvd_utils.cli.errors import BadInput

SIDE = 32  # pixels
QUALITY = 95  # of the JPEG encoder


def ensure_digits(folder: Path) -> Path:
    """Return ``folder`` with ``train/`` and ``val/``, writing them first if they are not there.

    Written beside and renamed, so that the folder is whole whenever it exists; of several
    processes that do so at once, one wins. Raises BadInput if it cannot be written.
    """
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
        try:
            _write(temporary)
            temporary.chmod(0o755)  # mkdtemp's is private
            os.rename(temporary, folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise BadInput(
            f"cannot write the embedded data set to {folder}: {error.strerror}; set --data DIR"
        ) from error
    return folder


def _write(folder: Path) -> None:
    from sklearn.datasets import load_digits  # slow to import, needed once

    images, labels = load_digits(return_X_y=True)
    grey = np.minimum(images.reshape(-1, 8, 8) * 16, 255).astype(np.uint8)  # 0 to 16 there
    for number, (pixels, label) in enumerate(zip(grey, labels, strict=True)):
        split = "val" if number % 5 == 0 else "train"
        path = folder / split / str(label) / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        enlarged = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        enlarged.save(path, quality=QUALITY)
