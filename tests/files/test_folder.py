"""Each image is segmented once, whatever comes between: kills, damage, mistakes; nothing of the reader's is lost."""

import csv
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import lab
import numpy as np
import pytest
import torch
from discs import Discs
from filelock import FileLock
from PIL import Image

import sam_nb.files.folder as folder_module
import sam_nb.files.folder_image as image_module
from sam_nb import Prompt, Segment, Session, iou, load_coco, load_image, load_mask, segment_folder, storage

HEIGHT, WIDTH = 40, 60
COUNT = 50


class Model(Discs):
    """Discs that count what they encode, in a file, so that a killed process has counted, too."""

    weights = "0a"
    precision = "float32"

    def __init__(self, log):
        super().__init__(HEIGHT, WIDTH, radius=8)
        self.log = log

    def encode(self, image, progress=None):
        with self.log.open("a") as log:
            log.write(f"{image[0, 0, 0]}\n")
        if image[0, 0, 0] == 255:
            raise RuntimeError("the model has\nno memory left")
        if image[0, 0, 0] == 254:
            raise MemoryError
        return super().encode(image)

    def decode(self, embedding, prompt):
        prompt.check_inside(HEIGHT, WIDTH)
        return super().decode(embedding, prompt)

    def encoded(self):
        """Return the shades of grey that were encoded since the last call, sorted: two images are made at a time."""
        shades = [int(line) for line in self.log.read_text().split()] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(shades)


def write_image(path, shade):
    Image.new("RGB", (WIDTH, HEIGHT), (shade, 9, 9)).save(path)


def write(path, entries):
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return path


def tree(folder):
    """Return the bytes of all files in a folder by their paths, hidden ones but for the lock's included."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def times(folder):
    """Return when each file was written, locks aside: older versions of filelock touch them."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}


def without(rows, *columns):
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


@pytest.fixture
def model(tmp_path):
    return Model(tmp_path / "log")


@pytest.fixture
def folder(tmp_path):
    """Return a folder of three images of shades 1, 2 and 3: a.png, a.jpg (though a PNG inside) and b.png."""
    made = tmp_path / "images"
    made.mkdir()
    for shade, name in enumerate(("a.png", "a.jpg", "b.png"), start=1):
        write_image(made / "new.png", shade)
        (made / "new.png").rename(made / name)
    return made


@pytest.fixture
def box(tmp_path):
    """Return a prompt file with one box for all images."""
    return write(tmp_path / "box.json", {"*": [{"name": "door", "category": "part", "box": [10, 5, 29, 24]}]})


@pytest.fixture
def out(tmp_path):
    return tmp_path / "deep" / "out"


def test_both_forms_give_the_masks_that_were_seen_already(lite, tmp_path, out):
    made = tmp_path / "images"
    made.mkdir()
    for name in ("street", "cat"):
        Image.fromarray(load_image(name)).save(made / f"{name}.png")
    cat = load_image("cat")
    session = Session.on(lite, cat)
    session.add_point(220, 150)
    session.choose((session.masks.best_index + 1) % 3)
    session.add_point(260, 250)
    session.new_object()
    session.add_point(5, 5, 0)  # a lone background click gives no mask
    session.new_object()
    session.set_box(40, 60, 200, 140)
    session.rename(2, "ear", "part")
    ring = {"box": [250, 370, 410, 510], "points": [[334, 438], [300, 400]], "labels": [0, 1]}
    lone = {"points": [[500, 375]]}
    entries = {"street.png": [ring | {"name": "ring"}, lone], "cat.png": json.loads(session.to_json())}
    rows = segment_folder(lite, made, write(tmp_path / "prompts.json", entries), out)

    street = lite.encode(load_image("street"))
    expected = [lite.decode(street, Prompt(**fields)) for fields in (ring, lone)]
    seen = session.segments()
    saved = {name: load_coco(out / name / "coco.json") for name in ("street.png", "cat.png")}
    # A folder run computes with fewer threads, which rounds otherwise.
    for found, masks in zip(saved["street.png"], expected, strict=True):
        assert iou(found.mask, masks.best) > 0.9999
        assert found.score == pytest.approx(masks.scores.max(), abs=1e-5)
    for found, segment in zip(saved["cat.png"], seen, strict=True):
        assert iou(found.mask, segment.mask) > 0.9999
        assert found.score == pytest.approx(segment.score, abs=1e-5)
    assert iou(load_mask(out / "street.png" / "masks" / "ring.png"), expected[0].best) > 0.9999
    assert json.loads((out / "street.png" / "coco.json").read_bytes())["images"][0]["file_name"] == "street.png"
    again = Session(partial(lite.decode, lite.encode(cat)), cat.shape[:2])
    again.load_json((out / "cat.png" / "prompts.json").read_text(encoding="utf-8"))  # the canvas can resume it
    assert np.array_equal(again.segments()[1].mask, seen[1].mask)

    named = [("cat.png", "object 1", "object"), ("cat.png", "ear", "part")]
    named += [("street.png", "ring", "object"), ("street.png", "object 2", "object")]
    assert [(row["image"], row["object"], row["category"]) for row in rows] == named
    written = [*saved["cat.png"], *saved["street.png"]]
    assert [row["area"] for row in rows] == [segment.mask.sum() for segment in written]
    assert [row["predicted_iou"] for row in rows] == [round(segment.score, 3) for segment in written]
    assert {(row["status"], row["reason"]) for row in rows} == {("done", "")}

    # Clicking on, without having changed a mask, is no reason to make them again.
    session.select(0)
    write(tmp_path / "prompts.json", entries | {"cat.png": json.loads(session.to_json())})
    assert {row["status"] for row in segment_folder(lite, made, tmp_path / "prompts.json", out)} == {"unchanged"}


def test_the_table_is_a_file_that_the_csv_module_and_excel_read(model, folder, box, out):
    (folder / "图,1.png").write_bytes((folder / "b.png").read_bytes())
    rows = segment_folder(model, folder, box, out)
    assert rows[0] == {
        "image": "a.jpg",
        "object": "door",
        "category": "part",
        "area": 400,
        "predicted_iou": 0.8,
        "status": "done",
        "reason": "",
    }
    with (out / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.DictReader(file)) == [{name: str(value) for name, value in row.items()} for row in rows]
    assert (out / "summary.csv").read_bytes()[:3] == b"\xef\xbb\xbf"
    assert rows[-1]["image"] == "图,1.png"


# A process that stops in the middle of a call, and waits there to be killed.
KILLED = """
import sys, time
from pathlib import Path
from test_folder import Model, folder_module, segment_folder

function, at, log, folder, prompts, out, overwrite, at_once = sys.argv[1:]
folder_module.AT_ONCE = int(at_once)
called = 0
true = getattr(Path, function)

def hang(path, argument):
    global called
    called += 1
    if called == int(at):
        if function == "write_bytes":
            true(path, argument[: len(argument) // 2])
        Path(log).with_name("hangs").touch()
        time.sleep(600)
    return true(path, argument)

setattr(Path, function, hang)
segment_folder(Model(Path(log)), folder, prompts, out, overwrite=overwrite == "True")
"""


def run_and_kill(tmp_path, *given):
    """Run `KILLED` with these arguments, and kill it where it hangs."""
    here = Path(__file__).parent
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (here, here.parent))))
    said = tmp_path / "said"
    with said.open("w") as stderr:
        run = subprocess.Popen([sys.executable, "-c", KILLED, *map(str, given)], env=environment, stderr=stderr)

    def hangs():
        assert run.poll() is None, said.read_text()
        return (tmp_path / "hangs").exists()

    try:
        lab.wait_until(hangs, "the run does not come to where it is to be killed", 100)
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize(
    ("stop", "is_update", "finished"),
    [
        (("write_bytes", 4 * 10 + 2), False, 10),  # of four files for each image, the 11th one's second is half there
        (("replace", 2 * 20 + 2), False, 20),  # the 21st is whole and has not got its place
        (("replace", 3 * 30 + 3), True, 30),  # of the 31st the old result is gone and the new one not there
        (("replace", 2 * COUNT + 1), False, COUNT),  # only the table is missing
    ],
    ids=["half a file", "before the last step", "between old and new", "before the table"],
)
def test_a_killed_run_is_resumed(tmp_path, model, stop, is_update, finished):
    folder, out, whole = tmp_path / "images", tmp_path / "out", tmp_path / "whole"
    folder.mkdir()
    names = [f"no. {number:02d}.png" for number in range(COUNT)]
    for shade, name in enumerate(names):
        write_image(folder / name, shade)
    entries = {name: [{"box": [shade, 3, shade + 9, 30]}] for shade, name in enumerate(names)}
    prompts = write(tmp_path / "prompts.json", entries)
    uninterrupted = segment_folder(model, folder, prompts, whole)
    if is_update:
        segment_folder(model, folder, write(tmp_path / "old.json", {"*": [{"points": [[20, 20]]}]}), out)
    assert model.encoded() == sorted([*range(COUNT)] * (1 + is_update))

    run_and_kill(tmp_path, *stop, model.log, folder, prompts, out, is_update, 1)
    assert model.encoded() == [*range(min(finished + 1, COUNT))]
    left = [path.name for path in out.iterdir() if path.name.startswith(".") and path.suffix != ".lock"]
    assert len(left) == 1, "the killed run left something unfinished, else this test would show nothing"
    before = {name: times(out / name) for name in names[:finished]}
    assert all(before.values())

    resumed = segment_folder(model, folder, prompts, out, overwrite=is_update)
    assert model.encoded() == [*range(finished, COUNT)], "each image that was missing, once"
    assert {name: times(out / name) for name in names[:finished]} == before
    statuses = [row["status"] for row in resumed]
    assert statuses == ["unchanged"] * finished + ["done"] * (COUNT - finished)
    assert without(resumed, "status") == without(uninterrupted, "status")
    found, expected = tree(out), tree(whole)
    assert found.pop("summary.csv").replace(b"unchanged", b"done") == expected.pop("summary.csv")
    assert found == expected


def test_an_interrupted_run_leaves_whole_results_and_goes_on(model, folder, box, out, monkeypatch):
    decoded = []

    def interrupted(embedding, prompt):
        if decoded:
            raise KeyboardInterrupt
        decoded.append(prompt)
        return Model.decode(model, embedding, prompt)

    monkeypatch.setattr(model, "decode", interrupted)
    monkeypatch.setattr(folder_module, "AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        segment_folder(model, folder, box, out)
    assert [path.name for path in out.iterdir() if path.suffix != ".lock"] == ["a.jpg"]
    monkeypatch.undo()
    model.encoded()
    rows = segment_folder(model, folder, box, out)
    assert [row["status"] for row in rows] == ["unchanged", "done", "done"]
    assert model.encoded() == [1, 3]


def test_two_images_are_made_at_a_time_with_half_the_threads_each(model, folder, box, out, monkeypatch):
    """The first two wait for each other, and fail if they are not made side by side."""
    meet, calls, shares, true = threading.Barrier(2), itertools.count(), [], model.decode
    threads = torch.get_num_threads()

    def decode(embedding, prompt):
        if next(calls) < 2:
            meet.wait(30)
        shares.append(torch.get_num_threads())
        return true(embedding, prompt)

    monkeypatch.setattr(model, "decode", decode)
    torch.set_num_threads(6)
    try:
        rows = segment_folder(model, folder, box, out)
        assert torch.get_num_threads() == 6
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 6
    finally:
        torch.set_num_threads(threads)
    assert [row["status"] for row in rows] == ["done"] * 3
    assert shares == [3, 3, 3]


def test_a_run_killed_with_two_images_in_hand_is_resumed(model, tmp_path, out):
    folder = tmp_path / "images"
    folder.mkdir()
    for shade in range(20):
        write_image(folder / f"{shade:02}.png", shade)
    prompts = write(tmp_path / "prompts.json", {"*": [{"box": [3, 3, 20, 30]}]})
    run_and_kill(tmp_path, "replace", 2 * 10 + 2, model.log, folder, prompts, out, False, 2)
    model.encoded()
    whole = {shade for shade in range(20) if (out / f"{shade:02}.png").exists()}
    assert 9 <= len(whole) <= 14  # those before the one that hangs, and at most what was in hand with it
    rows = segment_folder(model, folder, prompts, out)
    assert [row["status"] for row in rows] == ["unchanged" if shade in whole else "done" for shade in range(20)]
    assert model.encoded() == sorted({*range(20)} - whole)


def test_each_image_can_be_looked_at_when_it_is_finished(model, folder, box, out):
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    seen = []

    def look(rows):
        result = out / rows[0]["image"]
        seen.append((rows, result.is_dir() and load_coco(result / "coco.json")[0].name))

    table = segment_folder(model, folder, box, out, on_image=look)
    assert [row for rows, _ in seen for row in rows] == table
    assert [found for _, found in seen] == ["door", "door", "door", False]


def test_a_look_can_end_the_run_as_an_interruption_does(model, folder, box, out):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_folder(model, folder, box, out, on_image=stop)
    before = model.encoded()
    assert 2 in before
    rows = segment_folder(model, folder, box, out)
    assert rows[0]["status"] == "unchanged"
    assert sorted(before + model.encoded()) == [1, 2, 3], "what was computed when it ended was written, too"


def test_a_failing_image_has_its_reason_in_the_table_and_the_others_go_on(model, folder, box, out):
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "phone.HEIC").write_bytes(b"what a phone writes")
    write_image(folder / "huge.png", 255)
    write_image(folder / "vast.png", 254)
    prompts = write(
        box,
        json.loads(box.read_bytes())
        | {"b.png": [{"box": [0, 0, 9, 9]}, {"points": [[10, 300]]}], "a.png": {"sam_nb_session": 1, "objects": []}},
    )
    rows = segment_folder(model, folder, prompts, out)
    reasons = {row["image"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert [row["image"] for row in rows if row["status"] == "done"] == ["a.jpg"]
    assert re.search("session .*damaged|damaged session", reasons.pop("a.png"))
    assert re.search(
        r"the point \(10, 300\) lies far outside the \w+, which is 60 wide and 40 high", reasons.pop("b.png")
    )
    assert reasons.pop("cut.png").startswith("'cut.png' is damaged: ")
    assert reasons.pop("huge.png") == "the model has no memory left"
    assert re.match(r"'phone.HEIC' is not an? \w+ that Pillow can read", reasons.pop("phone.HEIC"))
    assert reasons.pop("vast.png") == "MemoryError"
    assert not reasons
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".lock") == ["a.jpg", "summary.csv"]
    assert [row["image"] for row in rows] == sorted(path.name for path in folder.iterdir())
    failed = next(row for row in rows if row["image"] == "b.png")
    assert (failed["object"], failed["area"], failed["predicted_iou"]) == ("", "", "")

    # Put right, they are made, and only they.
    model.encoded()
    write_image(folder / "cut.png", 7)
    write_image(folder / "huge.png", 8)
    (folder / "phone.HEIC").unlink()
    (folder / "vast.png").unlink()
    write(prompts, {"*": json.loads(box.read_bytes())["*"]})
    rows = segment_folder(model, folder, prompts, out)
    assert [row["status"] for row in rows] == ["unchanged", *["done"] * 4]
    assert model.encoded() == [1, 3, 7, 8]


def test_an_empty_mask_is_a_reason_and_the_others_go_on(model, folder, box, out, monkeypatch):
    decode = image_module.segments_of

    def with_an_empty_one(sam, file):
        (segment,) = decode(sam, file)
        return [Segment(segment.mask & (file.image[0, 0, 0] != 2), "door", "part", 0.5)]

    monkeypatch.setattr(image_module, "segments_of", with_an_empty_one)
    rows = segment_folder(model, folder, box, out)
    assert {row["image"]: row["status"] for row in rows} == {"a.png": "done", "a.jpg": "failed", "b.png": "done"}
    assert "door: the mask is empty" in next(row["reason"] for row in rows if row["image"] == "a.jpg")


def test_stale_results_are_named_and_replaced_only_on_request(model, folder, box, out, tmp_path):
    first = segment_folder(model, folder, box, out)
    before = tree(out)
    assert first[0]["area"] == 400

    entries = json.loads(box.read_bytes())
    write(box, {name: entries["*"] for name in ("b.png", "a.png", "a.jpg")})  # the same prompts in other words
    segment_folder(model, folder, box, out)
    assert tree(out) == before | {"summary.csv": before["summary.csv"].replace(b",done,", b",unchanged,")}
    model.encoded()

    changed = write(tmp_path / "changed.json", entries | {"a.jpg": [{"name": "gate", "box": [10, 5, 19, 14]}]})
    write_image(folder / "b.png", 33)
    kept = times(out)
    with pytest.raises(
        FileExistsError, match=r"made from other prompts: a.jpg; from another image: b.png. .*overwrite=True"
    ):
        segment_folder(model, folder, changed, out)
    assert times(out) == kept
    assert model.encoded() == []

    unchanged = times(out / "a.png")
    rows = segment_folder(model, folder, changed, out, overwrite=True)
    assert [(row["object"], row["area"], row["status"]) for row in rows] == [
        ("gate", 100, "done"),
        ("door", 400, "unchanged"),
        ("door", 400, "done"),
    ]
    assert times(out / "a.png") == unchanged
    assert model.encoded() == [2, 33]
    assert [path.name for path in (out / "a.jpg" / "masks").iterdir()] == ["gate.png"]  # nothing of the old one
    assert [path.name for path in out.glob(".*")] in ([], [".segment_folder.lock"])

    for attribute, value in (("name", "vit_b"), ("weights", "ff"), ("precision", "bfloat16")):
        other = Model(model.log)
        setattr(other, attribute, value)
        with pytest.raises(FileExistsError, match=r"by another model or other weights \(discs\): a.jpg, a.png, b.png"):
            segment_folder(other, folder, changed, out)


def test_what_others_made_is_never_replaced(model, folder, box, out):
    (out / "b.png").mkdir(parents=True)
    (out / "b.png" / "notes.txt").write_text("mine")
    (out / "a.txt").write_text("mine")
    before = tree(out)
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"b.png' is damaged or was not made by segment_folder: move it away"):
            segment_folder(model, folder, box, out, overwrite=overwrite)
    with pytest.raises(FileExistsError, match=r"a.jpg' is damaged or was not made"):
        segment_folder(model, folder, box, folder)
    assert tree(out) == before
    (out / "b.png" / "notes.txt").unlink()
    (out / "b.png").rmdir()
    (out / "summary.csv").write_text("image;verdict\n")
    with pytest.raises(FileExistsError, match=r"summary.csv' is another table: rename it"):
        segment_folder(model, folder, box, out, overwrite=True)
    (out / "summary.csv").unlink()
    segment_folder(model, folder, box, out)
    for name in ("prompts.json", "coco.json"):
        content = (out / "a.jpg" / name).read_bytes()
        for damaged in (b"", b"[]", b"{}", b'{"segment_folder": "x"}', b'{"annotations": [], "categories": []}'):
            (out / "a.jpg" / name).write_bytes(damaged)
            with pytest.raises(FileExistsError, match=r"a.jpg' is damaged"):
                segment_folder(model, folder, box, out, overwrite=True)
        (out / "a.jpg" / name).write_bytes(content)
    assert {row["status"] for row in segment_folder(model, folder, box, out)} == {"unchanged"}


def test_a_full_disk_ends_the_run_and_takes_nothing_away(model, folder, box, out, monkeypatch):
    segment_folder(model, folder, box, out)
    before = tree(out)
    written, write_bytes = [], Path.write_bytes

    def full(path, content):
        written.append(path)
        if len(written) >= 6:  # the second image's second file
            write_bytes(path, content[:10])
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(folder_module, "AT_ONCE", 1)
    other = write(box.with_name("other.json"), {"*": [{"name": "door", "category": "part", "box": [10, 5, 19, 14]}]})
    with pytest.raises(OSError, match="No space left"):
        segment_folder(model, folder, other, out, overwrite=True)
    after = tree(out)
    assert set(after) == set(before)
    assert {path.split("/")[0] for path in after if after[path] != before[path]} == {"a.jpg"}
    monkeypatch.undo()
    rows = segment_folder(model, folder, other, out, overwrite=True)
    assert [row["status"] for row in rows] == ["unchanged", "done", "done"]


def test_what_is_swept_up_is_ours(model, folder, box, out):
    out.mkdir(parents=True)
    for name in (".a.png-abcd_123", ".c.png-abcd_123", ".vscode-insiders", ".a.png-notes", "a.png-abcd_123"):
        (out / name / "masks").mkdir(parents=True)
    for name in (".summary.csv-12345678", ".other.csv-12345678"):
        (out / name).touch()
    segment_folder(model, folder, box, out)
    left = sorted(path.name for path in out.iterdir() if path.suffix != ".lock" and not (path / "coco.json").exists())
    assert left == sorted(
        [".a.png-notes", ".c.png-abcd_123", ".other.csv-12345678", ".vscode-insiders", "a.png-abcd_123", "summary.csv"]
    )


def test_two_runs_do_not_write_into_one_folder(model, folder, box, out):
    out.mkdir(parents=True)
    with (
        FileLock(out / ".segment_folder.lock"),
        pytest.raises(RuntimeError, match=r"another run is writing into .*choose another folder"),
    ):
        segment_folder(model, folder, box, out)
    assert len(segment_folder(model, folder, box, out)) == 3


def test_which_files_are_images(model, folder, box, tmp_path):
    (folder / "notes.txt").write_text("not an image")
    (folder / "._a.png").write_bytes(b"what macOS leaves there")
    (folder / "more").mkdir()
    write_image(folder / "more" / "c.png", 5)
    write_image(tmp_path / "d.PNG", 6)
    (tmp_path / "d.PNG").rename(folder / "d.PNG")
    write_image(tmp_path / "scan.png", 7)
    (tmp_path / "scan.png").rename(folder / "scan")
    out = folder / "out"  # may lie there: sub-folders are left alone
    prompts = write(
        tmp_path / "prompts.json", {"scan": [{"box": [1, 1, 9, 9]}], "a.png": [], "a.jpg": [{"box": [1, 1, 9, 9]}]}
    )
    rows = segment_folder(model, folder, prompts, out)
    assert [(row["image"], row["status"]) for row in rows] == [
        ("a.jpg", "done"),
        ("a.png", "no prompts"),
        ("b.png", "no prompts"),
        ("d.PNG", "no prompts"),
        ("scan", "done"),
    ]
    assert model.encoded() == [2, 7]
    assert not (out / "b.png").exists()
    rows = segment_folder(model, folder, box, out, overwrite=True)
    assert [(row["image"], row["status"]) for row in rows] == [
        (n, "done") for n in ("a.jpg", "a.png", "b.png", "d.PNG")
    ]


def test_a_session_of_background_clicks_has_no_prompts(model, folder, tmp_path, out):
    session = Session(partial(model.decode, "encoded"), (HEIGHT, WIDTH))
    session.add_point(5, 5, 0)
    rows = segment_folder(model, folder, write(tmp_path / "s.json", {"*": json.loads(session.to_json())}), out)
    assert {row["status"] for row in rows} == {"no prompts"}
    assert [path.name for path in out.iterdir() if path.suffix != ".lock"] == ["summary.csv"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_names_that_windows_does_not_take(model, tmp_path, box, out):
    folder = tmp_path / "names"
    folder.mkdir()
    accented = unicodedata.normalize("NFD", "é.png")
    names = {
        "con.png": "%63on.png",
        "a:b?.png": "a%3Ab%3F.png",
        "50%.png": "50%25.png",
        "a%3Ab%3F.png": "a%253Ab%253F.png",
    }
    for shade, name in enumerate([*names, accented, "console.png"]):
        write_image(tmp_path / "x.png", shade)
        (tmp_path / "x.png").rename(folder / name)
    box = write(box, json.loads(box.read_bytes()) | {"é.png": [{"name": "CON", "box": [1, 1, 9, 9]}]})
    rows = segment_folder(model, folder, box, out)
    assert {row["status"] for row in rows} == {"done"}
    expected = {*names.values(), "é.png", "console.png", "summary.csv"}
    assert {path.name for path in out.iterdir() if path.suffix != ".lock"} == expected
    assert (out / "é.png" / "masks" / "_CON.png").exists()


def test_places_that_are_not_there(model, folder, box, tmp_path, out):
    with pytest.raises(FileNotFoundError, match=r"no folder .*imaged' \(looked in"):
        segment_folder(model, tmp_path / "imaged", box, out)
    with pytest.raises(FileNotFoundError, match=r"no prompt file .*none.json' \(looked in"):
        segment_folder(model, folder, tmp_path / "none.json", out)
    prompts = write(tmp_path / "p.json", {"b.pgn": [{"box": [1, 2, 3, 4]}]})
    with pytest.raises(FileNotFoundError, match=r"p.json names 'b.pgn', and there is no such file in .*mean 'b.png'"):
        segment_folder(model, folder, prompts, out)
    prompts = write(tmp_path / "p.json", {"holiday/2024/0001.jpeg": [{"box": [1, 2, 3, 4]}]})
    with pytest.raises(FileNotFoundError, match="Sub-folders are skipped"):
        segment_folder(model, folder, prompts, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no image \(.jpg, .png, .webp, .tif ...\) in .*empty'$"):
        segment_folder(model, tmp_path / "empty", box, out)
    (tmp_path / "empty" / "film.mp4").touch()
    with pytest.raises(ValueError, match=r"it holds 1 other files, such as 'film.mp4'"):
        segment_folder(model, tmp_path / "empty", box, out)
    assert not out.exists()


def test_a_prompt_file_from_windows_notepad(model, folder, box, out):
    box.write_bytes(b"\xef\xbb\xbf" + box.read_bytes())
    assert len(segment_folder(model, str(folder), str(box), str(out))) == 3


# One bad image, the others done -------------------------------------------------------------------------------------


def exif_that_cannot_be_written_back():
    """Return EXIF data that turns an image and holds a resolution of -1/0."""
    turned = struct.pack("<HHI", 0x112, 3, 1) + struct.pack("<HH", 6, 0)
    resolution = struct.pack("<HHI", 0x11A, 10, 1) + struct.pack("<I", 38)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + turned + resolution + struct.pack("<Iii", 0, -1, 0)


def statuses(rows):
    return {row["image"]: row["status"] for row in rows}


def test_an_image_whose_exif_cannot_be_written_back(model, folder, box, out):
    Image.new("RGB", (HEIGHT, WIDTH), (7, 9, 9)).save(folder / "aa.jpg", exif=exif_that_cannot_be_written_back())
    found = statuses(segment_folder(model, folder, box, out))
    assert found.pop("aa.jpg") in ("done", "failed")  # as `load_image` has it
    assert found == dict.fromkeys(["a.jpg", "a.png", "b.png"], "done")
    assert (out / "summary.csv").exists()


ERRORS = [
    *(struct.error("argument out of range"), KeyError("exif"), IndexError("list index out of range")),
    *(TypeError("not a number"), ZeroDivisionError(), RecursionError(), SyntaxError("not a TIFF file")),
    *(PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), OSError(36, "File name too long")),
    UnicodeEncodeError("utf-8", "\udcc6", 0, 1, "surrogates not allowed"),
]


FAULTS = [("decode_image", error) for error in ERRORS]
FAULTS += [(where, ERRORS[-3]) for where in ("segments_of", "save_segments", "replace_folder", "result_rows")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}, {type(fault[1]).__name__}")
def test_whatever_goes_wrong_with_one_image_the_others_are_done(folder, box, out, monkeypatch, fault):
    where, error = fault
    monkeypatch.setattr(folder_module, "AT_ONCE", 1)  # the second call is the second image's
    true, calls = getattr(image_module, where), []

    def fail_second(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return true(*args, **options)

    monkeypatch.setattr(image_module, where, fail_second)
    rows = segment_folder(Model(box.with_name("log")), folder, box, out)
    assert statuses(rows) == {"a.jpg": "done", "a.png": "failed", "b.png": "done"}
    words = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
    assert words in rows[1]["reason"]
    assert isinstance(error, OSError) or type(error).__name__ in rows[1]["reason"]
    with (out / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "failed", "done"]
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.suffix != ".lock"]


def test_an_image_that_cannot_be_read(model, folder, box, out, monkeypatch):
    read_bytes = Path.read_bytes

    def failing_disk(path):
        if path.name == "a.png" and path.parent == folder:
            raise OSError(5, "Input/output error", str(path))
        return read_bytes(path)

    segment_folder(model, folder, box, out)
    kept = times(out / "a.png")
    other = write(box.with_name("other.json"), {"*": [{"box": [10, 5, 19, 14]}]})
    monkeypatch.setattr(Path, "read_bytes", failing_disk)
    for prompts, expected in ((box, "unchanged"), (other, "done")):
        rows = segment_folder(model, folder, prompts, out, overwrite=True)
        assert statuses(rows) == {"a.jpg": expected, "a.png": "failed", "b.png": expected}
        assert "Input/output error" in rows[1]["reason"]
    assert times(out / "a.png") == kept, "nobody knows whether it is stale"


@pytest.mark.skipif(os.name == "nt", reason="making links takes rights there")
def test_a_link_to_nothing_is_a_failed_image(model, folder, box, out):
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "gone.txt").symlink_to(folder / "nothing.txt")
    found = statuses(segment_folder(model, folder, box, out))
    assert found == {"a.jpg": "done", "a.png": "done", "b.png": "done", "gone.png": "failed"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(model, folder, box, out):
    for shade, name in enumerate(["\u6c7d\u8f66.png".encode("gbk"), "\u5361\u8f66.png".encode("gbk")], start=20):
        write_image(folder / "new.png", shade)
        os.rename(os.fsencode(folder / "new.png"), os.fsencode(folder) + b"/" + name)
    entries = json.loads(box.read_bytes()) | {"%BF%A8%B3%B5.png": [{"name": "lorry", "box": [10, 5, 19, 14]}]}
    rows = segment_folder(model, folder, write(box, entries), out)
    assert statuses(rows) == dict.fromkeys(["a.jpg", "a.png", "b.png", "%BF%A8%B3%B5.png", "%C6%FB%B3%B5.png"], "done")
    assert [row["area"] for row in rows if row["object"] == "lorry"] == [100]
    assert (out / "%C6%FB%B3%B5.png" / "coco.json").exists()
    print(rows)
    assert set(statuses(segment_folder(model, folder, box, out)).values()) == {"unchanged"}


def test_long_names(model, folder, box, out):
    names = ["\u56fe" * 81 + ".png", "\u56fe" * 80 + "b.png", "?" * 200 + ".png" if os.name == "posix" else "x.png"]
    for shade, name in enumerate(names, start=20):
        write_image(folder / "new.png", shade)
        (folder / "new.png").rename(folder / name)
    objects = [{"name": "the small red car on the left " * 10, "box": [10, 5, 29, 24]}]
    rows = segment_folder(model, folder, write(box, {"*": objects}), out)
    assert statuses(rows) == dict.fromkeys(["a.jpg", "a.png", "b.png", *names], "done")
    assert {row["object"] for row in rows} == {objects[0]["name"]}
    made = [path for path in out.rglob("*")]
    assert max(len(os.fsencode(path.name)) for path in made) <= 140  # 143 is the least that a file system takes
    assert len([path for path in out.iterdir() if path.is_dir()]) == 6
    assert set(statuses(segment_folder(model, folder, box, out)).values()) == {"unchanged"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take these names for one")
def test_names_that_other_systems_take_for_one(model, tmp_path, box, out):
    made = tmp_path / "names"
    made.mkdir()
    names = ["IMG.png", "Img.png", "img.png", "\u00e9.png", "e\u0301.png"]
    for shade, name in enumerate(names):
        write_image(made / name, shade)
    rows = segment_folder(model, made, box, out)
    assert [row["status"] for row in rows] == ["done"] * 5
    results = [path.name for path in out.iterdir() if path.is_dir()]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in results}) == 5
    assert "img.png" in results
    before = tree(out)
    (made / "IMG.png").unlink()  # the others' results stay theirs
    assert {row["status"] for row in segment_folder(model, made, box, out)} == {"unchanged"}
    assert set(tree(out)) == set(before)


def test_an_image_that_is_named_like_the_table_or_hidden(model, folder, tmp_path, out):
    entries = {}
    for shade, name in enumerate(["summary.csv", ".a.png-12345678", ".segment_folder.lock"]):
        write_image(folder / "new.png", shade)
        (folder / "new.png").rename(folder / name)
        entries[name] = [{"box": [10, 5, 29, 24]}]
    prompts = write(tmp_path / "prompts.json", entries)
    for status in ("done", "unchanged"):
        found = statuses(segment_folder(model, folder, prompts, out))
        assert {found[name] for name in entries} == {status}
        assert (out / "summary.csv").is_file()


# Disks ----------------------------------------------------------------------------------------------------------------


def test_a_table_that_cannot_be_written_is_not_lost(model, folder, box, out, monkeypatch):
    def open_in_excel(path, content, *, overwrite):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sam_nb.files.folder_state.write_bytes", open_in_excel)
    with pytest.warns(UserWarning, match=r"summary.csv' Permission denied: is it open in another program\?"):
        rows = segment_folder(model, folder, box, out)
    assert set(statuses(rows).values()) == {"done"}
    (out / "summary.csv").mkdir()
    with pytest.raises(FileExistsError, match=r"summary.csv' is another table"):
        segment_folder(model, folder, box, out)


def test_a_finished_run_is_read_where_nothing_can_be_written(model, folder, box, out, monkeypatch):
    segment_folder(model, folder, box, out)
    kept = times(out)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("sam_nb.files.folder_state.locked", None)
    assert set(statuses(segment_folder(model, folder, box, out)).values()) == {"unchanged"}
    assert times(out) == kept
    write_image(folder / "new.png", 9)
    with pytest.raises(PermissionError, match=r"may not be written, and has no result for new.png: choose another"):
        segment_folder(model, folder, box, out)


def test_a_full_disk_says_how_to_resume(model, folder, box, out, monkeypatch):
    true = storage.replace_folder

    def full(part, place, **options):
        if place.name != "a.jpg":
            raise OSError(28, "No space left on device")
        true(part, place, **options)

    monkeypatch.setattr(image_module, "replace_folder", full)
    with pytest.raises(OSError, match=r"Make room and run again: it resumes: .*out'") as caught:
        segment_folder(model, folder, box, out)
    assert caught.value.errno == 28
    assert [path.name for path in out.iterdir() if path.suffix != ".lock"] == ["a.jpg"]
    monkeypatch.undo()
    assert statuses(segment_folder(model, folder, box, out)) == {"a.jpg": "unchanged", "a.png": "done", "b.png": "done"}


def test_an_old_result_comes_back_if_the_new_one_cannot_get_its_place(model, folder, box, out, monkeypatch):
    segment_folder(model, folder, box, out)
    (out / "a.png" / "notes.txt").write_text("mine")
    before = tree(out / "a.png")
    replace = Path.replace

    def failing_disk(path, target):
        if path.name == "new" and Path(target).name == "a.png":
            raise OSError(5, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", failing_disk)
    other = write(box.with_name("other.json"), {"*": [{"box": [10, 5, 19, 14]}]})
    rows = segment_folder(model, folder, other, out, overwrite=True)
    assert statuses(rows) == {"a.jpg": "done", "a.png": "failed", "b.png": "done"}
    assert tree(out / "a.png") == before


def test_what_appears_during_a_run_is_not_replaced(model, folder, box, out, monkeypatch):
    true = image_module.save_segments

    def another_program(*args, **options):
        (out / "a.png").mkdir(exist_ok=True)
        (out / "a.png" / "notes.txt").write_text("mine")
        return true(*args, **options)

    monkeypatch.setattr(image_module, "save_segments", another_program)
    rows = segment_folder(model, folder, box, out, overwrite=True)
    assert statuses(rows) == {"a.jpg": "done", "a.png": "failed", "b.png": "done"}
    assert tree(out / "a.png") == {"notes.txt": b"mine"}
    assert "exists already" in rows[1]["reason"]


def test_a_list_of_images_from_anywhere(model, folder, out, tmp_path):
    """Two have the same file name: they go by their paths, and each has a result of its own."""
    other = tmp_path / "other"
    other.mkdir()
    (folder / "b.png").rename(other / "a.png")
    sources = [folder / "a.jpg", str(other / "a.png"), folder / "a.png"]
    prompts = {"a.png": [{"box": [10, 5, 29, 24]}], "a.jpg": [], str(folder / "a.png"): [{"box": [1, 2, 9, 12]}]}
    rows = segment_folder(model, sources, write(tmp_path / "prompts.json", prompts), out)
    assert [row["image"] for row in rows] == ["a.jpg", str(other / "a.png"), str(folder / "a.png")]
    assert [row["status"] for row in rows] == ["no prompts", "done", "done"]
    assert [row["area"] for row in rows[1:]] == [400, 99]
    assert len([path for path in out.iterdir() if path.is_dir()]) == 2
    again = segment_folder(model, sources[::-1], tmp_path / "prompts.json", out)
    assert [row["status"] for row in again] == ["unchanged", "unchanged", "no prompts"]
    for images, words in (
        ([], "holds no image"),
        ([folder / "a.jpg"] * 2, "a.jpg' twice"),
        ([3], r"images\[0\]: .*int"),
    ):
        with pytest.raises(ValueError, match=words):
            segment_folder(model, images, tmp_path / "prompts.json", out)
    with pytest.raises(FileNotFoundError, match=r"names 'a\.jpg', and there is no such file in the list"):
        segment_folder(model, sources[1:], tmp_path / "prompts.json", out)
