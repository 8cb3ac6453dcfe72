"""Every figure to play with, moved once in a real JupyterLab as a reader moves it."""

import course
import lab
import nbformat
import pytest

PLAYERS = [(path, index) for path in course.NOTEBOOKS for index in course.players(path)]


@pytest.fixture(scope="module")
def server(tmp_path_factory, need_chromium):
    folder = tmp_path_factory.mktemp("players")
    work = folder / "work"
    work.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SAM_NB_MODEL", "lite")
        with lab.jupyter_lab(folder, work) as (address, token):
            yield folder, address, token


@pytest.mark.parametrize(("path", "index"), PLAYERS, ids=[f"{path.stem}-{index}" for path, index in PLAYERS])
def test_it_follows_the_hand(server, path, index):
    folder, address, token = server
    sources = [cell.source for cell in course.code_cells(path)]
    cells = [nbformat.v4.new_code_cell(source) for source in [*course.needed(sources, index), sources[index]]]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    name = f"{path.stem}-{index}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
    with lab.chromium_page() as page:
        lab.open_notebook(page, address, token, name)
        run = lab.run_all_cells(page, timeout=240)
        assert not [output for cell in run for output in cell["outputs"] if output["output_type"] == "error"]
        player = page.locator(".jp-OutputArea-output .widget-vbox").last
        canvas = player.locator("canvas").first
        canvas.scroll_into_view_if_needed()
        moved = 0
        for handle in player.locator(".noUi-handle").all():
            moved += 1
            follows(page, player, canvas, lambda handle=handle: handle.press("ArrowLeft"))
        for button in player.locator(".jupyter-button:not(.mod-active)").all()[:1]:
            moved += 1
            follows(page, player, canvas, button.click)
        for box in player.locator("input[type=checkbox]").all():
            moved += 1
            follows(page, player, canvas, box.click)
        if not moved:
            place = canvas.bounding_box()
            corners = [
                (place["x"] + share * place["width"], place["y"] + share * place["height"]) for share in (0.3, 0.7)
            ]

            def drag():
                page.mouse.move(*corners[0])
                page.mouse.down()
                page.mouse.move(*corners[1], steps=3)
                page.mouse.up()

            follows(page, player, canvas, drag)


def follows(page, player, canvas, move):
    """Move something and wait until title or image have changed."""
    before, title = canvas.screenshot(), player.locator(".widget-html").inner_text()
    move()
    for _ in range(100):
        page.wait_for_timeout(50)
        if player.locator(".widget-html").inner_text() != title or canvas.screenshot() != before:
            break
    else:
        pytest.fail(f"nothing moved: {title}")
    assert "Error" not in player.locator(".widget-html").inner_text()
