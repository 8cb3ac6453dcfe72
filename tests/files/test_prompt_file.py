"""The prompt file of a folder run: what it may hold, what that means, and what is wrong with the rest, in words."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from sam_nb import segment_folder
from sam_nb.files.prompt_file import ANY_IMAGE, read_prompt_file


@pytest.fixture
def read(tmp_path):
    """Return a function that writes entries into a prompt file and reads it."""

    def write_and_read(entries):
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
        return read_prompt_file(path)

    return write_and_read


def test_a_list_of_objects(read):
    wheel = {"name": "left wheel", "category": "wheel", "box": [250, 370, 410, 510]}
    roof = {"points": [[500, 200], [300, 50]], "labels": [1, 0]}
    entries = read({"a.jpg": [wheel, roof], ANY_IMAGE: [{"points": [[3, 4]]}], "b.jpg": []})
    first, second = entries["a.jpg"].objects
    assert (first.name, first.category) == ("left wheel", "wheel")
    assert np.array_equal(first.prompt.box, wheel["box"])
    assert (second.name, second.category) == ("object 2", "object")
    assert np.array_equal(second.prompt.points, roof["points"])
    assert np.array_equal(second.prompt.labels, roof["labels"])
    assert np.array_equal(entries[ANY_IMAGE].objects[0].prompt.labels, [1])
    assert entries["b.jpg"] is None
    assert entries["a.jpg"].session is None


def test_a_session_is_kept_but_for_what_its_masks_do_not_depend_on(read):
    session = {"sam_nb_session": 1, "model": "lite", "selected": 3, "objects": [1, 2]}
    (entry,) = read({"a.jpg": session}).values()
    assert entry.to_record() == {"sam_nb_session": 1, "selected": 0, "objects": [1, 2]}
    assert entry.objects == ()


def test_the_same_prompts_have_the_same_record(read):
    one = read({"*": [{"points": [[3, 4]], "labels": [1]}]})["*"]
    other = read({"*": [{"category": "object", "name": "object 1", "points": [[3.0, 4.0]]}]})["*"]
    assert one.to_record() == other.to_record()
    assert json.loads(json.dumps(one.to_record())) == one.to_record()


def test_accents_are_in_one_form(read):
    assert list(read({unicodedata.normalize("NFD", "é.png"): []})) == [unicodedata.normalize("NFC", "é.png")]


def test_a_file_from_windows_notepad(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"*": [{"box": [1, 2, 3, 4]}]}')
    assert len(read_prompt_file(path)[ANY_IMAGE].objects) == 1


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prompt file .*none.json' \(looked in"):
        read_prompt_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"is not a prompt file: not JSON: Expecting property name"),
        ("[]", r"expected a JSON object with an entry for each image, such as \{\"a.jpg\""),
        ("{}", r"expected a JSON object with an entry for each image"),
        ('{"sam_nb_session": 1, "objects": []}', r"is the session of one image: write it under that image's name"),
        ('{"*": {"box": [1, 2, 3, 4]}}', r"'\*': expected a list of objects, .* or a session, got \{'box'"),
        ('{"*": [7]}', r"'\*', object 1: expected a JSON object with fields among name, category, points"),
        ('{"*": [{"bax": [1, 2, 3, 4]}]}', r"fields among .*, got \{'bax': \[1, 2, 3, 4\]\}"),
        ('{"*": [{"mask_input": [[0.5]]}]}', r"fields among"),
        ('{"a.jpg": [{"box": [1, 2, 3, 4]}, {"box": [9, 2, 3, 4]}]}', r"'a.jpg', object 2: box: .* are reversed"),
        ('{"a.jpg": [{"name": "door"}]}', r"'a.jpg', object 1: an empty prompt"),
        ('{"a.jpg": [{"name": "", "box": [1, 2, 3, 4]}]}', r"name and category must be text that is not empty"),
        ('{"a.jpg": [{"category": 3, "box": [1, 2, 3, 4]}]}', r"name and category must be text that is not empty"),
        (
            '{"*": [{"name": "a", "box": [1, 2, 3, 4]}, {"name": "a", "box": [1, 2, 3, 4]}]}',
            r"expected a different name for each object, got \['a', 'a'\]",
        ),
        pytest.param("[" * 100_000, "is not a prompt file: .* lie too deep in each other", id="deep"),
        ('{"*": [{"box": [1, 2, 3, NaN]}]}', r"'\*', object 1: box: expected finite numbers"),
        ('{"*": [{"points": [[1, 1e999]]}]}', r"'\*', object 1: points: expected finite numbers"),
        pytest.param(f'{{"*": [{{"box": [1, 2, 3, 1{"0" * 400}]}}]}}', r"'\*', object 1: ", id="long"),
        ('{"a.jpg": [{"box": [1, 2, 3, 4]}], "a.jpg": [{"box": [1, 2, 9, 9]}]}', r"'a.jpg' appears twice"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_done(tmp_path, text, words):
    prompts = tmp_path / "prompts.json"
    prompts.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_prompt_file(prompts)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.jpg")
    no_model = object()  # it can neither encode nor decode, and has no name
    with pytest.raises(ValueError, match=words):
        segment_folder(no_model, tmp_path / "images", prompts, tmp_path / "out")
    assert not (tmp_path / "out").exists()
