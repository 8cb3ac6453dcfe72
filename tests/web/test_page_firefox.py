"""The built page in Firefox: it loads, and the same clicks give the same masks as in Python."""

import firefox
import lab
import numpy as np
import pytest
from reader import Reader

from sam_nb import Session, iou, load_coco, load_image

pytestmark = pytest.mark.usefixtures("need_firefox")


class Foxy(Reader):
    """A reader in Firefox, which saves without asking."""

    def __init__(self, page, address, downloads):
        self.downloads = downloads
        super().__init__(page, address)

    def download(self, button, folder):
        assert folder == self.downloads
        before = set(folder.iterdir())
        self.page.locator(f"#{button}").click()
        lab.wait_until(lambda: self.finished(folder, before), "nothing was saved")
        (path,) = self.finished(folder, before)
        return path

    @staticmethod
    def finished(folder, before):
        new = set(folder.iterdir()) - before
        return new if all(path.suffix != ".part" and path.stat().st_size for path in new) else set()


@pytest.fixture(scope="module")
def reader(address, tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    with firefox.firefox_page(folder, intl__accept_languages="en-US") as page:
        page.set_default_timeout(60_000)
        yield Foxy(page, address, folder)


def test_the_same_clicks_give_the_same_masks_as_in_python(reader, built, lite):
    reader.click(0.43, 0.58)
    reader.press("n")
    reader.drag(0.22, 0.57, 0.36, 0.79)
    reader.click(0.29, 0.68, button="right")
    assert reader.painted() > 1000
    session = Session.on(lite, load_image(built / "samples" / "street.jpg"))
    session.load_json(reader.download("save-prompts", reader.downloads).read_text(encoding="utf-8"))
    assert [len(item.steps) for item in session.objects] == [1, 2]
    found = load_coco(reader.download("save-coco", reader.downloads))
    ious = [iou(one.mask, other.mask) for one, other in zip(found, session.segments(), strict=True)]
    assert np.mean(ious) >= 0.995, ious


def test_undo_everything_and_the_other_language(reader):
    reader.open("cat")
    reader.click(0.55, 0.5)
    assert reader.painted() > 1000
    reader.press("z")
    assert reader.painted() == 0
    reader.page.locator("#everything").click()
    reader.page.locator("#everything:not(.running)").wait_for()
    assert reader.page.locator("#objects li").count() > 1
    reader.page.locator("#language").click()
    assert reader.page.evaluate("document.documentElement.lang") == "zh-CN"
