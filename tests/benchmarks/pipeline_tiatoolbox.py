"""tiatoolbox's patches of a slide, in an interpreter that has it; one JSON object on stdout.

python pipeline_tiatoolbox.py SLIDE SIZE TARGET_MPP SLIDE_MPP
"""

from __future__ import annotations

import json
import sys
import time

from tiatoolbox.tools.patchextraction import SlidingWindowPatchExtractor
from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader

MASK_MPP = 8.0


def main() -> None:
    """Find tissue as its documentation does (morphological), and read every patch in it."""
    slide, size, target, own = (
        sys.argv[1],
        int(sys.argv[2]),
        float(sys.argv[3]),
        float(sys.argv[4]),
    )
    began = time.perf_counter()
    reader = OpenSlideWSIReader(slide, mpp=(own, own), power=10 / own)
    mask = reader.tissue_mask("morphological", resolution=MASK_MPP, units="mpp")
    patches = SlidingWindowPatchExtractor(
        input_img=reader,
        input_mask=mask,
        patch_size=(size, size),
        resolution=target,
        units="mpp",
        min_mask_ratio=0.5,
    )
    count = sum(1 for _ in patches)
    seconds = time.perf_counter() - began
    scale = target / own
    coords = [[round(x * scale), round(y * scale)] for x, y, *_ in patches.coordinate_list]
    assert len(coords) == count
    sys.stdout.write(json.dumps({"seconds": seconds, "coords": coords}) + "\n")


if __name__ == "__main__":
    main()
