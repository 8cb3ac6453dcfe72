"""Draw docs/dask_dashboard.jpg: Dask's dashboard while `segment_folder` runs on two workers, in a real browser.

``python scripts/draw_dashboard.py``; needs Chromium. Traffic stays on 127.0.0.1.
"""

import io
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import lab

from sam_nb import load_image, load_sam, segment_folder
from sam_nb.storage import write_bytes

PICTURE = Path(__file__).parent.parent / "docs" / "dask_dashboard.jpg"
COUNT, AT = 40, 24  # images, and after how many of them the picture is taken


def write_images(folder: Path) -> None:
    """Write photographs, no two the same: what has been encoded before would take no time."""
    folder.mkdir()
    for number in range(COUNT):
        image = np.clip(load_image("street") * (0.5 + number / COUNT), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number:02}.jpg")


def main() -> None:
    """Run, and take the picture while it runs."""
    os.environ["SAM_NB_MODEL"] = "lite"
    with (
        tempfile.TemporaryDirectory() as home,
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster,
        Client(cluster) as client,
        lab.chromium_page(device_scale_factor=1.5) as page,
    ):
        os.environ["SAM_NB_HOME"] = home
        folder, shots = Path(home), []
        write_images(folder / "images")
        wheels = [
            {"name": "front wheel", "box": [250, 370, 410, 510]},
            {"name": "rear wheel", "box": [830, 338, 966, 458]},
        ]
        (folder / "wanted.json").write_text(json.dumps({"*": wheels}), encoding="utf-8")
        page.goto(f"{client.dashboard_link}")

        def look(_: object, seen: list[int] = []) -> None:  # noqa: B006  counts its calls
            seen.append(1)
            if len(seen) == AT:
                page.wait_for_timeout(1500)  # the page follows twice a second
                shots.append(page.screenshot())

        segment_folder(
            load_sam(), folder / "images", folder / "wanted.json", folder / "out", client=client, on_image=look
        )
        file = io.BytesIO()
        Image.open(io.BytesIO(shots[0])).convert("RGB").resize((1400, 1000)).save(file, "JPEG", quality=80)
        write_bytes(PICTURE, file.getvalue(), overwrite=True)


if __name__ == "__main__":
    main()
