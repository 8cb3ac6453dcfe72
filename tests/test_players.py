"""Every figure to play with, moved once in a real JupyterLab as a reader moves it."""

import shutil

import course
import lab
import pytest

NOTEBOOKS = [path for path in course.NOTEBOOKS if course.players(path)]


@pytest.fixture(scope="module")
def server(tmp_path_factory, need_chromium):
    folder = tmp_path_factory.mktemp("players")
    work = folder / "work"
    work.mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SAM_NB_MODEL", "lite")
        with lab.jupyter_lab(folder, work) as (address, token):
            yield folder, address, token


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_figures_follow_the_hand(server, path):
    """After all cells: a figure must not live on names that a later cell gives to something else."""
    folder, address, token = server
    shutil.copy(path, folder)
    with lab.chromium_page() as page:
        lab.open_notebook(page, address, token, path.name)
        cells = lab.run_all_cells(page, timeout=300)
        ran = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in ran] == list(range(1, len(ran) + 1))
        assert not [cell for cell in ran if is_broken(cell)]
        for player in course.players(path):
            move_each_control(page, lab.scroll_to_cell(page, player))
        lab.shut_down_kernel(page)  # each holds a model: together they would fill the memory


def test_the_benchmark_finds_a_figure(monkeypatch):
    """The first of notebook 01, whose cells before it are few."""
    monkeypatch.syspath_prepend(course.FOLDER.parent / "benchmarks")
    monkeypatch.setenv("SAM_NB_MODEL", "lite")
    from play import player_of

    path = NOTEBOOKS[0]
    assert player_of(path, course.players(path)[0]).controls


def is_broken(cell):
    """Return whether a cell has ended in an error that it is not there to show."""
    errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
    return errors and "raises-exception" not in cell["metadata"].get("tags", [])


def move_each_control(page, cell):
    player = cell.locator(".jp-OutputArea-output .widget-vbox").last
    canvas = player.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    moves = [lambda handle=handle: handle.press("ArrowLeft") for handle in player.locator(".noUi-handle").all()]
    moves += [button.click for button in player.locator(".jupyter-button:not(.mod-active)").all()[:1]]
    moves += [box.click for box in player.locator("input[type=checkbox]").all()]

    def drag():
        place = canvas.bounding_box()
        page.mouse.move(place["x"] + 0.3 * place["width"], place["y"] + 0.3 * place["height"])
        page.mouse.down()
        page.mouse.move(place["x"] + 0.7 * place["width"], place["y"] + 0.7 * place["height"], steps=3)
        page.mouse.up()

    for move in moves or [drag]:
        follows(page, player, canvas, move)


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
