"""Annotations of images with nearly 1,000,000,000 pixels: masks take the memory of what they show, and no more."""

import json
import subprocess
import sys

import numpy as np
import pytest

from sam_nb import load_coco

SIDE, COUNT, MAX_MB = 31_000, 6, 1500  # as arrays of their own, written all over, the masks would take 5,800 MB

READER = """
import re, resource, sys
from pathlib import Path
from sam_nb import load_coco, load_labelme

segments = (load_coco if "annotations" in open(sys.argv[1]).read() else load_labelme)(sys.argv[1])
for segment in segments:
    part = segment.mask[15_000:15_004, 20_000:20_006]
    assert segment.mask.shape == (31_000, 31_000)
    assert part[1:3, 1:5].all() and part.sum() == 8 and not segment.mask[0].any() and not segment.mask[:, 0].any()
if sys.platform == "linux":  # where getrusage would count what the parent held when it started this process
    megabytes = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
else:
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2
print(len(segments), megabytes)
"""

BOX = [[20_001, 15_001], [20_004, 15_001], [20_004, 15_002], [20_001, 15_002]]  # around centres of pixels: 4 x 2
EDGES = [20_001, 15_001, 20_005, 15_001, 20_005, 15_003, 20_001, 15_003]  # along edges
START = 20_001 * SIDE + 15_001
RUNS = [START, 2, SIDE - 2, 2, SIDE - 2, 2, SIDE - 2, 2]


def coco(segmentation):
    size = {"height": SIDE, "width": SIDE}
    annotations = [{"id": number, "category_id": 1, "segmentation": segmentation} for number in range(COUNT)]
    return {"images": [size], "categories": [{"id": 1, "name": "dot"}], "annotations": annotations}


FILES = {
    "COCO polygons": coco([EDGES]),
    "COCO run-length encoding": coco({"size": [SIDE, SIDE], "counts": [*RUNS, SIDE * SIDE - sum(RUNS)]}),
    "LabelMe": {"imageHeight": SIDE, "imageWidth": SIDE, "shapes": [{"label": "dot", "points": BOX}] * COUNT},
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no module that tells a process's largest memory")
@pytest.mark.parametrize("name", FILES)
def test_masks_of_a_huge_image_take_the_memory_of_what_they_show(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps(FILES[name]))
    done = subprocess.run(
        [sys.executable, "-c", READER, tmp_path / "a.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, megabytes = map(int, done.stdout.split())
    assert count == COUNT
    assert megabytes < MAX_MB


@pytest.mark.parametrize(
    "runs", [[0, 12], [12], [0, 1, 11], [11, 1], [3, 3, 6], [4, 4, 4], [1, 0, 2, 0, 3, 6], [0, 0, 0, 12], [5, 0, 7]]
)
def test_runs_at_every_edge(tmp_path, runs):
    """3 pixels high and 4 wide, column by column: against each pixel written out."""
    record = coco({"size": [3, 4], "counts": runs}) | {"images": [{"height": 3, "width": 4}]}
    record["annotations"] = record["annotations"][:1]
    (tmp_path / "a.json").write_text(json.dumps(record))
    pixels = [number % 2 == 1 for number, run in enumerate(runs) for _ in range(run)]
    if not any(pixels):
        with pytest.raises(ValueError, match="it covers no pixel"):
            load_coco(tmp_path / "a.json")
    else:
        np.testing.assert_array_equal(load_coco(tmp_path / "a.json")[0].mask, np.reshape(pixels, (4, 3)).T)
