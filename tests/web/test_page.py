"""The built page in Chromium, served below a folder by a plain static server: the same clicks, the same masks.

`make web` builds it; without that these tests are skipped, and where the environment variable CI is set and npm is
installed they fail.
"""

import hashlib
import json
import re
from pathlib import Path

import lab
import numpy as np
import pytest
from PIL import Image
from reader import BELOW, TIMEOUT, Handler, Reader

from sam_nb import Session, bounding_box, iou, load_coco, load_image, load_mask
from sam_nb.networks.lite import WEIGHTS

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.usefixtures("need_chromium")


class Watched(Reader):
    """A reader in Chromium, where all that the page asks for and each of its errors is seen."""

    def __init__(self, page, address, sample="street"):
        self.errors, self.hosts = [], set()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        super().__init__(page, address, sample)

    def download(self, button, folder):
        with self.page.expect_download() as waiting:
            self.page.locator(f"#{button}").click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


@pytest.fixture(scope="module")
def shared(address):
    """Yield one reader for all tests of a page of usual width."""
    with lab.chromium_page(locale="en-US", accept_downloads=True) as page:
        yield Watched(page, address)


@pytest.fixture
def new_page(shared):
    """Return a function that opens a page with settings of its own, in the same browser."""
    contexts = []

    def make(**options):
        contexts.append(shared.page.context.browser.new_context(accept_downloads=True, **options))
        return contexts[-1].new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def reader(shared):
    """Return the shared reader on a fresh cat."""
    shared.open("cat")
    shared.press("i")
    yield shared
    assert not shared.errors


def test_the_built_page_is_the_current_one(built):
    for path in [*(ROOT / "web" / "js").iterdir(), *(ROOT / "web" / name for name in ("index.html", "style.css"))]:
        name = path.relative_to(ROOT / "web")
        assert (built / name).read_bytes() == path.read_bytes(), f"{name} has changed: make web again"
    about = json.loads((built / "model" / "model.json").read_text(encoding="utf-8"))
    assert about["weights_sha256"] == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(), "lite is newer: make web again"


# Objects as a reader clicks them, in shares of width and height: right clicks are negative, four numbers are a box.
OBJECTS = {
    "street": [
        [(0.43, 0.58)],
        [(0.28, 0.68)],
        [(0.28, 0.68), (0.3, 0.6)],
        [(0.22, 0.57, 0.36, 0.79)],
        [(0.22, 0.57, 0.36, 0.79), (-0.29, 0.68)],
        [(0.07, 0.38, 0.72, 0.8)],
        [(0.66, 0.35)],
        [(0.66, 0.35), (-0.5, 0.6)],
        [(0.2, 0.2)],
        [(0.02, 0.2, 0.15, 0.5), (0.08, 0.35)],
    ],
    "coffee": [
        [(0.48, 0.25)],
        [(0.48, 0.42)],
        [(0.48, 0.42), (0.48, 0.68), (-0.75, 0.9)],
        [(0.29, 0.05, 0.68, 0.77)],
        [(0.13, 0.05, 0.8, 0.97)],
        [(0.13, 0.05, 0.8, 0.97), (-0.48, 0.4)],
        [(0.6, 0.72)],
        [(0.05, 0.1)],
        [(0.53, 0.6, 0.68, 0.83)],
        [(0.2, 0.6), (0.75, 0.6)],
    ],
}


@pytest.mark.parametrize("name", OBJECTS)
def test_the_same_clicks_give_the_same_masks_as_in_python(name, shared, built, lite, tmp_path):
    """The whole way: JPEG, resizing, encoder, prompts with logits fed back, decoder, upscaling, COCO."""
    shared.open(name)
    for steps in OBJECTS[name]:
        shared.press("n")
        for step in steps:
            if len(step) == 4:
                shared.drag(*step)
            else:
                shared.click(abs(step[0]), step[1], button="right" if step[0] < 0 else "left")
    session = Session.on(lite, load_image(built / "samples" / f"{name}.jpg"))
    session.load_json(shared.download("save-prompts", tmp_path).read_text(encoding="utf-8"))
    assert [len(item.steps) for item in session.objects] == [len(steps) for steps in OBJECTS[name]]
    expected = {segment.name: segment for segment in session.segments()}
    found = load_coco(shared.download("save-coco", tmp_path))
    assert [segment.name for segment in found] == list(expected)
    values = [iou(segment.mask, expected[segment.name].mask) for segment in found]
    assert np.mean(values) >= 0.995, values
    for segment in found:
        assert segment.score == pytest.approx(expected[segment.name].score, abs=0.02)


SIZES = [((37, 91), (21, 52)), ((200, 31), (512, 79)), ((64, 50), (64, 20)), ((300, 171), (128, 73))]


@pytest.mark.parametrize(("size", "new"), SIZES)
def test_images_are_resized_as_pillow_does_it(size, new, shared):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 4), np.uint8)
    code = """async ([address, pixels, size, to]) => {
        const { resize } = await import(`${address}js/resize.js`);
        return Array.from(resize(Uint8ClampedArray.from(pixels), size, to));
    }"""
    found = shared.page.evaluate(code, [shared.address, pixels.ravel().tolist(), size, new])
    expected = Image.fromarray(pixels[..., :3]).resize(new[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.reshape(found, (*new, 3)), np.array(expected))


def test_files_to_take_home(reader, built, tmp_path):
    reader.click(0.55, 0.5)
    mask = load_mask(reader.download("save-mask", tmp_path))
    image = load_image(built / "samples" / "cat.jpg")
    assert mask.shape == image.shape[:2]
    assert 0.1 < mask.mean() < 0.9
    (segment,) = load_coco(reader.download("save-coco", tmp_path))
    np.testing.assert_array_equal(segment.mask, mask)
    record = json.loads((tmp_path / "cat_coco.json").read_text(encoding="utf-8"))
    x0, y0, x1, y1 = map(int, bounding_box(mask))
    (annotation,) = record["annotations"]
    assert (annotation["area"], annotation["bbox"]) == (mask.sum(), [x0, y0, x1 - x0, y1 - y0])
    assert "lite" in record["info"]["description"]
    cutout = np.array(Image.open(reader.download("save-cutout", tmp_path)))
    np.testing.assert_array_equal(cutout[..., 3] > 0, mask)
    assert np.abs(cutout[mask][:, :3].astype(int) - image[mask]).max() <= 4  # two decoders of JPEG
    names = ["cat_coco.json", "cat_object_1.png", "cat_object_1_cutout.png"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == names


def test_box_and_right_click_undo_and_redo(reader, tmp_path):
    reader.drag(0.3, 0.25, 0.5, 0.5)
    reader.click(0.9, 0.9, button="right")
    (((box, point)),) = (reader.steps(tmp_path),)[0]
    np.testing.assert_allclose(box["box"], [0.3 * 451, 0.25 * 300, 0.5 * 451, 0.5 * 300], atol=1.5)
    np.testing.assert_allclose(point["point"], [0.9 * 451, 0.9 * 300], atol=1.5)
    assert point["label"] == 0
    two = reader.status
    reader.page.locator("#undo").click()
    reader.settle()
    assert reader.status != two
    assert reader.steps(tmp_path) == [[box]]
    reader.press("z")
    assert reader.status.startswith("Click: this.")
    assert reader.painted() == 0
    assert reader.page.locator("#undo").is_disabled()
    reader.press("y", "y")
    assert reader.status == two


def test_three_masks_to_choose_from(reader, tmp_path):
    reader.click(0.5, 0.6)
    masks = reader.page.locator("#masks button")
    assert masks.count() == 3
    first = reader.page.evaluate("[...document.querySelectorAll('#masks button')].map(b => b.ariaPressed)").index(
        "true"
    )
    other = (first + 1) % 3
    masks.nth(other).click()
    reader.settle()
    assert f"mask {other + 1} of 3" in reader.status
    assert reader.steps(tmp_path)[0][1:] == [{"choose": other}]
    reader.press(str(first + 1))
    assert f"mask {first + 1} of 3" in reader.status
    reader.click(0.6, 0.6)
    assert "of 3" not in reader.status
    assert not reader.page.locator("#choice").is_visible()


def test_several_objects(reader, tmp_path):
    reader.click(0.3, 0.4)
    reader.page.locator("#new").click()
    reader.click(0.7, 0.45)
    colors = reader.page.evaluate("[...document.querySelectorAll('.swatch')].map(s => s.style.background)")
    assert colors == ["rgb(30, 144, 255)", "rgb(230, 159, 0)"]
    reader.page.locator("#objects input").nth(0).fill("left eye")
    reader.page.locator("#objects input").nth(0).press("Enter")
    reader.settle()
    assert reader.status.startswith("left eye")
    assert [segment.name for segment in load_coco(reader.download("save-coco", tmp_path))] == ["left eye", "object 2"]
    reader.page.locator("#objects button").nth(0).click()
    reader.settle()
    assert reader.page.locator("#objects li").count() == 1
    reader.page.locator("#canvas").focus()
    reader.press("z")
    assert reader.page.locator("#objects li").count() == 2


def test_only_background_clicks(reader):
    reader.press("x")
    reader.click(0.5, 0.5)
    assert reader.status.startswith("Only background clicks")
    assert reader.page.locator("#save-mask").is_disabled()


def test_a_preview_follows_the_mouse(reader):
    reader.page.mouse.move(*reader.place(0.5, 0.5))
    lab.wait_until(reader.painted, "no preview", TIMEOUT)
    reader.page.mouse.move(5, 5)
    assert reader.painted() == 0
    assert reader.status.startswith("Click: this.")


def test_the_keyboard_alone_is_enough(reader, tmp_path):
    reader.page.locator("#canvas").focus()
    reader.press("ArrowLeft", "ArrowUp", "Enter")
    reader.press("ArrowRight", "Shift+Enter")
    far = 451 / 40
    places = [(451 / 2 - far, 150 - far, 1), (451 / 2, 150 - far, 0)]
    steps = reader.steps(tmp_path)[0]
    np.testing.assert_allclose([(*step["point"], step["label"]) for step in steps], places, atol=0.02)
    reader.page.locator("#canvas").focus()
    reader.press("Delete")
    assert reader.status.startswith("Click: this.")


def test_everything_can_be_stopped_and_undone(reader):
    button = reader.page.locator("#everything")
    decodes = "performance.getEntriesByName('decode').length"
    before = reader.page.evaluate(decodes)
    button.click()
    reader.page.locator("#progress:not([hidden])").wait_for()
    assert button.inner_text() == "Stop"
    button.click()
    reader.page.locator("#everything:not(.running)").wait_for()
    assert reader.page.evaluate(decodes) - before < 15  # of 25 batches
    assert reader.page.locator("#objects li").count() == 1
    button.click()
    reader.page.locator("#everything:not(.running)").wait_for()
    count = reader.page.locator("#objects li").count()
    assert count > 1
    assert reader.status == f"{count} masks found. Select one in the list, and click to correct it."
    assert reader.painted() > 1000
    reader.press("z")
    assert reader.page.locator("#objects li").count() == 1


def test_an_image_of_one_s_own_stays_here(shared, lite, tmp_path):
    """A tall PNG, partly transparent, by the file picker: nothing but the page's own files is requested."""
    pixels = np.dstack([load_image("rocket")[:, 200:420], np.full((427, 220), 255, np.uint8)])
    pixels[:50, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "my photo.png")
    Handler.requests[0].clear()
    shared.page.locator("#file").set_input_files(tmp_path / "my photo.png")
    shared.wait_for_encoded("my photo.png")
    shared.click(0.55, 0.6)
    image = load_image(tmp_path / "my photo.png")
    (segment,) = load_coco(shared.download("save-coco", tmp_path))
    session = Session.on(lite, image)
    session.load_json(shared.download("save-prompts", tmp_path).read_text(encoding="utf-8"))
    assert iou(segment.mask, session.mask) >= 0.99
    assert Handler.requests[0] == []
    assert shared.hosts == {shared.address.split("/")[2]}
    assert not shared.errors


def test_a_file_that_is_not_an_image(shared, tmp_path):
    (tmp_path / "notes.txt").write_text("no pixels", encoding="utf-8")
    shared.page.locator("#file").set_input_files(tmp_path / "notes.txt")
    shared.page.locator("#status.error").wait_for()
    assert shared.status == "notes.txt is not an image that this browser can open."
    shared.open("cat")


def test_the_browser_keeps_the_page_from_sending_anything(shared):
    code = """() => new Promise((resolve) => {
        document.addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));
        fetch('http://127.0.0.1:9/', { method: 'POST', body: 'pixels' }).catch(() => {});
        setTimeout(() => resolve('it was sent'), 5000);
    })"""
    assert shared.page.evaluate(code) == "connect-src"


def test_everything_lies_below_the_page_s_own_folder(shared, address):
    """As on a project page, whose files lie below a folder of the server; each of them is there."""
    Handler.requests[0].clear()
    shared.page.goto(address)
    shared.wait_for_encoded("street")
    paths = [path for _, path, _ in Handler.requests[0]]
    assert paths
    assert all(method == "GET" for method, _, _ in Handler.requests[0])
    assert all(path.startswith(BELOW) for path in paths)
    assert all(code in (200, 304) for _, _, code in Handler.requests[0])
    links = shared.page.evaluate("[...document.querySelectorAll('#notebooks a')].map(a => a.href)")
    assert len(links) == len([*(ROOT / "notebooks").glob("*.ipynb")])
    assert all(shared.page.request.get(link).ok for link in links)


def test_a_phone_in_chinese(new_page, address, tmp_path):
    phone = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 3, "has_touch": True, "is_mobile": True}
    page = new_page(locale="zh-CN", **phone)
    reader = Watched(page, address)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.locator("span.include").inner_text() == "选中"
    page.touchscreen.tap(*reader.place(0.43, 0.58))
    reader.settle()
    assert "预测 IoU" in reader.status
    page.locator("span.exclude").tap()
    page.touchscreen.tap(*reader.place(0.9, 0.9))
    reader.settle()
    assert [step["label"] for step in reader.steps(tmp_path)[0]] == [1, 0]
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    words = page.locator("body").inner_text()
    assert not re.search(r"undefined|\{\d\}|Undo", words)
    page.locator("#language").tap()
    reader.settle()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("#undo").inner_text() == "Undo"
    assert "predicted IoU" in reader.status
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not reader.errors


def test_a_browser_without_simd_gets_plain_words(new_page, address):
    page = new_page(locale="en-US")
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(address)
    page.locator("#status.error").wait_for()
    assert page.locator("#status").inner_text().startswith("This browser lacks WebAssembly SIMD")
    assert page.evaluate("document.querySelector('#image').width") == load_image("street").shape[1]


def test_both_languages_have_every_word():
    """Each line of the table has two texts with the same gaps, and the page uses no key that is not in it."""
    text = (ROOT / "web" / "js" / "text.js").read_text(encoding="utf-8")
    table = re.search(r"const WORDS = \{(.*?)\n\};", text, re.DOTALL).group(1)
    rows = re.findall(r'^  (\w+): \[\s*"(.*?)",\s*"(.*?)",?\s*\],$', table, re.MULTILINE | re.DOTALL)
    assert len(rows) == len(re.findall(r"^  \w+:", table, re.MULTILINE))
    for key, english, chinese in rows:
        assert set(re.findall(r"\{\d\}", english)) == set(re.findall(r"\{\d\}", chinese)), key
        assert key == "saveCoco" or re.search(r"[\u4e00-\u9fff]|English", chinese), key
    used = set()
    for path in [ROOT / "web" / "index.html", *(ROOT / "web" / "js").glob("*.js")]:
        source = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'data-(?:text|label)="(\w+)"', source)) | set(re.findall(r'\btext\("(\w+)"', source))
    keys = {key for key, _, _ in rows}
    assert used <= keys
    assert len(keys - used) <= 6  # chosen by an expression: text(isTouch ? ... : ...)
