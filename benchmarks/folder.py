"""A folder of images: ``python benchmarks/folder.py``.

Prints two tables. The first: images a minute of the loop that one would write with the same functions, of
`segment_folder`, and of it with a Dask cluster of one and of two worker processes on this computer; medians, in turns.
The second: the memory that `segment_folder` holds after 10, 100 and 500 images (Linux). Needs the extra [cluster].
"""

import contextlib
import io
import itertools
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import measure
from distributed import Client, LocalCluster
from PIL import Image

from sam_nb import Prompt, Segment, load_image, load_sam, save_segments, segment_folder

COUNT, ROUNDS, SIDES = 24, 3, 4
SIZE = (1500, 1000)  # width and height, as a phone's picture made smaller
BOXES = [[150, 120, 640, 700], [500, 300, 1200, 900], [900, 60, 1400, 420]]
MEMORY_AT = (10, 100, 500)


def write_images(folder, numbers):
    """Write JPEGs of the photographs among the samples, another for each number: none has been encoded before."""
    photographs = [Image.fromarray(load_image(name)).resize(SIZE) for name in ("astronaut", "cat", "coffee", "rocket")]
    folder.mkdir()
    for number in numbers:
        turned = photographs[number % 4].rotate(number % 29 - 14)
        turned.paste((number % 256, number // 256, 0), (0, 0, 16, 16))
        turned.save(folder / f"{number:04}.jpg", quality=92)
    return folder


def loop(sam, images, out):
    """Do what a careful user's loop would: read, encode, decode, save, one after another."""
    for path in sorted(images.iterdir()):
        image = load_image(path)
        embedding = sam.encode(image)
        segments = []
        for number, box in enumerate(BOXES, start=1):
            masks = sam.decode(embedding, Prompt(box=box))
            segments.append(Segment(masks.best, f"object {number}", "object", float(masks.scores.max())))
        save_segments(segments, image, out / path.name, file_name=path.name, model=sam.name)


@contextlib.contextmanager
def cluster(workers):
    """Yield a client of worker processes that share this computer's cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    options = {"n_workers": workers, "threads_per_worker": threads, "dashboard_address": None, "host": "127.0.0.1"}
    with LocalCluster(**options) as made, Client(made) as client:
        yield client


def resident():
    """Return the memory that this process holds, MB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def memory_of(sam, folder):
    """Return the memory held after some images of a long run, MB by their number."""
    images, held, seen = write_images(folder / "many", range(5000, 5000 + max(MEMORY_AT))), {}, itertools.count(1)

    def look(_):
        number = next(seen)
        if number in MEMORY_AT:
            held[number] = resident()

    segment_folder(sam, images, folder / "prompts.json", folder / "many-out", on_image=look)
    return held


def main(write):
    """Measure and print the tables."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as open_clusters:
        folder = Path(home)
        os.environ |= {"SAM_NB_MODEL": "lite", "SAM_NB_HOME": str(folder / "home")}
        sam = load_sam()
        (folder / "prompts.json").write_text(json.dumps({"*": [{"box": box} for box in BOXES]}), encoding="utf-8")
        # Embeddings are kept by content: each run has images of its own, written before anything is timed.
        numbers = [range(run * COUNT, (run + 1) * COUNT) for run in range(SIDES * (ROUNDS + 1))]
        prepared = iter([write_images(folder / f"images-{each[0]}", each) for each in numbers])

        def run(client=None):
            images = next(prepared)
            segment_folder(sam, images, folder / "prompts.json", folder / f"out-{images.name}", client=client)

        def run_loop():
            images = next(prepared)
            loop(sam, images, folder / f"out-{images.name}")

        one, two = (open_clusters.enter_context(cluster(workers)) for workers in (1, 2))
        sides = {
            "a loop: `load_image`, `encode`, `decode`, `save_segments`": run_loop,
            "`segment_folder`": run,
            "`segment_folder`, one worker process": lambda: run(one),
            "`segment_folder`, two worker processes": lambda: run(two),
        }
        with contextlib.redirect_stderr(io.StringIO()):
            taken, _ = measure.in_turns(sides, ROUNDS)
        first = next(iter(taken.values()))
        rows = [(name, f"{60 * COUNT / seconds:.0f}", f"{first / seconds:.2f}") for name, seconds in taken.items()]
        about = (
            f"{COUNT} JPEGs of {SIZE[0]}x{SIZE[1]}, {len(BOXES)} boxes each, `lite`; medians of {ROUNDS} runs in "
            f"turns. {measure.machine('distributed')}"
        )
        measure.report("folder", ["", "images a minute", "times as fast"], rows, about, write)
        if sys.platform == "linux":
            held = memory_of(sam, folder)
            rows = [(number, f"{held[number]:.0f}") for number in MEMORY_AT]
            measure.report(
                "folder memory", ["images", "memory held, MB"], rows, "The same images, `segment_folder`.", write
            )


if __name__ == "__main__":
    main(measure.parser(__doc__).parse_args().write)
