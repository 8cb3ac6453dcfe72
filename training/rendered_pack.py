"""Rendered scenes as a pack of annotated photographs: regions, objects and parts from what each pixel shows.

Apart from `training.rendered`, which Blender's Python runs, so that it needs no Blender.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

PART_SHARES = 0.005, 0.4  # of an object's visible pixels: what is larger is nearly the object itself
MIN_PART = 60  # pixels


def annotate(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint16], list[dict]]:
    """Return disjoint regions, one for each object and material, and the objects with their parts.

    Parameters
    ----------
    numbers : HxWx2 numpy.ndarray of int
        Object and material; object 0 is ground, walls and sky.

    Returns
    -------
    (HxW numpy.ndarray of uint16, list of dict)
        As in a pack: each object has "regions", and "parts", regions that are neither specks nor nearly all of it.
    """
    owner, made = numbers[..., 0], numbers[..., 1]
    keys, places = np.unique(np.where(owner > 0, owner * (made.max() + 1) + made, 0), return_inverse=True)
    labels = (places + (keys[0] != 0)).reshape(owner.shape).astype(np.uint16)
    areas, objects = np.bincount(labels.ravel()), []
    for number in np.unique(owner[owner > 0]):
        regions = np.unique(labels[owner == number]).tolist()
        whole = areas[regions].sum()
        low, high = (share * whole for share in PART_SHARES)
        parts = [[region] for region in regions if max(low, MIN_PART) <= areas[region] <= high]
        objects.append({"regions": regions, "parts": parts})
    return labels, objects


def pack(out: Path) -> None:
    """Write all scenes that are there as `rendered.zip`."""
    manifest = []
    with zipfile.ZipFile(out / "rendered.zip", "w") as made:
        for path in sorted(out.glob("[0-9]*.json")):
            objects = json.loads(path.read_text())
            if objects:
                manifest.append({"name": f"rendered/{path.stem}", "objects": objects})
                for suffix in (".jpg", ".png"):
                    made.write(path.with_suffix(suffix), f"rendered/{path.stem}{suffix}")
        made.writestr("manifest.json", json.dumps(manifest))
