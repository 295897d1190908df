"""Do resize, luma and PSNR reproduce the published figures of bicubic up-scaling?

Usage: `python benchmarks/bicubic_table.py DATA_DIR`, where DATA_DIR holds the folders `set5`, `set14` and
`b100` of ground-truth images. Each folder is scored as `hfir-search evaluate bicubic --data DATA_DIR/set5
--upscale 2` does. Exit code 1 where a figure is off by over 0.02 dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from search.experiment.sections import TaskSection
from search.inference.scoring import Ruler, score_folder, what_costs_nothing

SCALES = (2, 3, 4)
TOLERANCE_DB = 0.02


class Reference(NamedTuple):
    """Mean PSNR on Y in dB for x2, x3, x4."""

    published: tuple[float, ...]
    """As super-resolution papers print it for this set."""
    reference_code: tuple[float, ...]
    """MATLAB's convention on the very files this was developed with; grey images taken as RGB."""


REFERENCES = {
    "set5": Reference((33.66, 30.39, 28.42), (33.65, 30.39, 28.42)),
    "set14": Reference((30.24, 27.55, 26.00), (30.32, 27.63, 26.09)),
    "b100": Reference((29.56, 27.21, 25.96), (29.55, 27.20, 25.96)),
}
"""Set5 (Bevilacqua et al. 2012), Set14 (Zeyde et al. 2010), B100 (Martin et al. 2001, BSDS)."""


def bicubic_psnr_db(folder: Path, scale: int) -> tuple[float, int]:
    """Return the mean PSNR on Y of a folder after bicubic down and up, and the number of images."""
    task = TaskSection(kind="super_resolution", upscale=scale)
    ruler = Ruler(["psnr"], scale=scale, channels=3)
    scores = score_folder(what_costs_nothing(scale, 3), folder, task=task, ruler=ruler)
    return scores.mean.figures["psnr_db"], len(scores.images)


def main() -> int:
    """Print the table; return 1 where a figure is off."""
    parser = argparse.ArgumentParser(description="Bicubic PSNR on Y beside the published figures.")
    parser.add_argument("data_dir", type=Path, help="holds the folders set5, set14 and b100")
    data_dir = parser.parse_args().data_dir
    print(f"{'set':<7}{'images':>7}{'scale':>7}{'ours':>9}{'code':>9}{'diff':>9}{'published':>11}")
    worst = 0.0
    for name, reference in REFERENCES.items():
        for scale, published, code in zip(SCALES, *reference, strict=True):
            ours, images = bicubic_psnr_db(data_dir / name, scale)
            worst = max(worst, abs(ours - code))
            row = f"{name:<7}{images:>7}{'x' + str(scale):>7}{ours:>9.3f}{code:>9.2f}"
            print(f"{row}{ours - code:>+9.3f}{published:>11.2f}")
    verdict = "reproduced" if worst <= TOLERANCE_DB else "NOT reproduced"
    print(f"max |ours - code| = {worst:.3f} dB, tolerance {TOLERANCE_DB} dB: {verdict}")
    return 0 if worst <= TOLERANCE_DB else 1


if __name__ == "__main__":
    raise SystemExit(main())
