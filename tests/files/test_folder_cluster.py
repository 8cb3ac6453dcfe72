"""A folder run on a Dask cluster of two processes: the same results, whatever dies in the middle."""

import copy
import hashlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from test_folder import tree, without, write

from sam_nb import load_image, load_sam, segment_folder
from sam_nb.files.folder_state import FAILED
from sam_nb.model.sam import Sam
from sam_nb.weights.weights_file import encode_weights

distributed = pytest.importorskip("distributed")

COUNT = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers of one thread, each a process, and a client; a home of their own that outlives a test's."""
    before = {name: os.environ.get(name) for name in ("SAM_NB_HOME", "SAM_NB_MODEL")}
    os.environ |= {"SAM_NB_HOME": str(tmp_path_factory.mktemp("home")), "SAM_NB_MODEL": "lite"}
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    scratch = str(tmp_path_factory.mktemp("dask"))
    with distributed.LocalCluster(local_directory=scratch, **options) as made, distributed.Client(made) as client:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        yield client


@pytest.fixture
def folder(tmp_path):
    """Return a folder with crops of a photograph, of different sizes, and one file that is damaged."""
    photo, made = load_image("cat"), tmp_path / "images"
    made.mkdir()
    for number in range(COUNT):
        Image.fromarray(photo[5 * number : 5 * number + 90, 7 * number : 7 * number + 130]).save(
            made / f"{number:02}.png"
        )
    (made / "cut.png").write_bytes((made / "03.png").read_bytes()[:500])
    return made


@pytest.fixture
def prompts(tmp_path):
    objects = [{"name": "middle", "box": [30, 20, 99, 70]}, {"name": "click", "points": [[40, 30]], "labels": [1]}]
    return write(tmp_path / "prompts.json", {"*": objects})


def test_the_results_are_those_of_one_machine(cluster, folder, prompts, tmp_path, lite):
    alone = segment_folder(lite, folder, prompts, tmp_path / "alone")
    seen = []
    spread = segment_folder(lite, folder, prompts, tmp_path / "spread", client=cluster, on_image=seen.append)
    assert without(spread, "predicted_iou") == without(alone, "predicted_iou")
    assert [row["predicted_iou"] for row in spread[:-1]] == pytest.approx([row["predicted_iou"] for row in alone[:-1]])
    assert [row["status"] for row in spread] == ["done"] * 2 * COUNT + ["failed"]
    assert sorted(rows[0]["image"] for rows in seen) == [*(f"{number:02}.png" for number in range(COUNT)), "cut.png"]
    found, expected = tree(tmp_path / "spread"), tree(tmp_path / "alone")
    assert set(found) == set(expected)
    masks = [name for name in expected if "/masks/" in name]
    assert len(masks) == 2 * COUNT
    for name in masks:  # threads that differ in number differ in the last bit
        differ = np.asarray(Image.open(tmp_path / "spread" / name)) != np.asarray(Image.open(tmp_path / "alone" / name))
        assert differ.mean() < 0.001
    again = segment_folder(lite, folder, prompts, tmp_path / "spread")
    assert {row["status"] for row in again} == {"unchanged", FAILED}


def test_a_worker_that_is_killed_costs_nothing_but_time(cluster, folder, prompts, tmp_path, lite):
    out = tmp_path / "out"
    victim, killed = next(iter(cluster.run(os.getpid).values())), []

    def kill(rows):
        if not killed:
            killed.append(rows[0]["image"])
            os.kill(victim, signal.SIGKILL)  # a process of the cluster that this test started

    rows = segment_folder(lite, folder, prompts, out, client=cluster, on_image=kill)
    assert killed
    assert [row["status"] for row in rows] == ["done"] * 2 * COUNT + ["failed"]
    assert {row["status"] for row in segment_folder(lite, folder, prompts, out)} == {"unchanged", FAILED}
    cluster.wait_for_workers(2)  # its nanny starts another
    assert victim not in cluster.run(os.getpid).values()


def test_a_run_that_is_stopped_resumes_with_and_without_a_cluster(cluster, folder, prompts, tmp_path, lite):
    out, seen = tmp_path / "out", []

    def stop(rows):
        seen.append(rows[0]["image"])
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_folder(lite, folder, prompts, out, client=cluster, on_image=stop)
    until = time.monotonic() + 60
    while cluster.processing() and any(cluster.processing().values()):
        assert time.monotonic() < until, "cancelled tasks go on"
        time.sleep(0.05)
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 3 <= len(there) < COUNT
    rows = segment_folder(lite, folder, prompts, out, client=cluster)
    unchanged = {row["image"] for row in rows if row["status"] == "unchanged"}
    assert unchanged == {*there}
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there


def test_a_second_run_is_refused_while_one_goes_on(cluster, folder, prompts, tmp_path, lite):
    out, refused = tmp_path / "out", []

    def again(_):
        if not refused:
            other = threading.Thread(target=lambda: refused.append(attempt()))
            other.start()
            other.join()

    def attempt():
        try:
            segment_folder(lite, folder, prompts, out, client=cluster)
        except RuntimeError as error:
            return str(error)
        return "it ran"

    segment_folder(lite, folder, prompts, out, client=cluster, on_image=again)
    assert "another run is writing into" in refused[0]


def test_weights_of_ones_own_travel_to_the_workers(cluster, folder, prompts, tmp_path, lite):
    model = copy.deepcopy(lite.model)
    with torch.no_grad():
        for weights in model.mask_decoder.output_hypernetworks_mlps.parameters():
            weights.mul_(0.8)
    tuned = Sam(model, "lite", hashlib.sha256(encode_weights(model)).hexdigest())
    alone = segment_folder(tuned, folder, prompts, tmp_path / "alone")
    spread = segment_folder(tuned, folder, prompts, tmp_path / "spread", client=cluster)
    official = segment_folder(load_sam("lite"), folder, prompts, tmp_path / "official")
    areas = [[row["area"] for row in rows[:-1]] for rows in (alone, spread, official)]
    assert areas[1] == pytest.approx(areas[0], rel=0.01)
    assert areas[2] != pytest.approx(areas[0], rel=0.01)
    assert {row["status"] for row in segment_folder(tuned, folder, prompts, tmp_path / "spread")} == {
        "unchanged",
        FAILED,
    }


FAULTS = """
import resource, sys
import numpy as np
from sam_nb.files.folder_cluster import _keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.empty(2**20).fill(1)  # 8 MB: 2048 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
_keep_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="glibc's malloc")
def test_memory_is_not_fetched_anew_for_every_array_as_dask_s_setting_has_it():
    environment = dict(os.environ, MALLOC_TRIM_THRESHOLD_="65536")
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 50
    assert after < before / 10
