"""What the README and the pages beside it say is true: code runs, commands exist, links lead somewhere."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from PIL import Image

import sam_nb
from sam_nb import CHECKPOINTS, load_ground_truth, load_image, save_mask
from sam_nb.article import ARTICLE_PROMPTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name / "README.md" for name in ("benchmarks", "training")),
]


def read(path):
    return path.read_text(encoding="utf-8")


def anchors(page):
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", read(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_in_order():
    assert len(README.splitlines()) <= 180
    order = ["docs/five_prompts.jpg", "**sam-nb** is", "## Two commands", "## Eight lines", "## Click to segment"]
    order += ["## The notebooks", "## The models", "## Links", "## Licence"]
    places = [README.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["eight lines", "click", "many images"]
)
def test_the_code_runs_as_pasted(code, tmp_path):
    assert len([line for line in code.splitlines() if line]) <= 8
    photo = load_image("cat")
    for name in ("my_image.jpg", "images/a.jpg", *(f"labelled/{number}.png" for number in range(5))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(photo[:120, :160]).save(tmp_path / name)
    for number in range(5):
        save_mask(load_ground_truth("cat")["left_eye"][:120, :160], tmp_path / "labelled" / f"{number}_mask.png")
    (tmp_path / "prompts.json").write_text('{"*": [{"box": [30, 20, 140, 110]}]}', encoding="utf-8")
    environment = dict(os.environ, MPLBACKEND="Agg", SAM_NB_MODEL="lite")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_commands_exist():
    makefile = read(ROOT / "Makefile")
    text = README + read(ROOT / "CONTRIBUTING.md") + read(ROOT / ".github" / "workflows" / "test.yml")
    commands = set(re.findall(r"(?:`|\n|run: )make ([a-z]+)", text))
    assert {"lab", "test", "help", "check", "notebooks", "setup"} <= commands
    assert all(re.search(rf"^{command}:", makefile, re.MULTILINE) for command in commands), commands


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", read(page), flags=re.DOTALL)  # without code, where ](...) is a call
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_pages_are_linked_with_each_other():
    assert all(f"]({path.relative_to(ROOT).as_posix()})" in README for path in PAGES[1:])
    assert all("](../README.md)" in read(path) for path in (ROOT / "docs").glob("*.md"))


def test_every_notebook_is_listed():
    names = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert names
    assert all(name in README for name in names)


def test_the_chinese_readme_does_not_lag_behind():
    for pattern in (
        r"^(?:make|python|source|jupyter|mamba) [^#\n]*[^#\s]",  # commands
        r"```python\n.*?```",
        r"\[(\d\d) · [^\]]+\]\((notebooks/[^)]+)\)",  # the table of the notebooks
        r"^\| `(\w+)` \|[^|]*\|[^|\d]*([\d.]+ [MG]B)?",  # the models
        r"\]\((docs/\w+\.webp|docs/five_prompts\.jpg)\)",
    ):
        there, here = (re.findall(pattern, text, re.DOTALL | re.MULTILINE) for text in (README, CHINESE))
        there, here = (sorted(re.sub(r"  # .*", "", "".join(found)) for found in texts) for texts in (there, here))
        assert there, pattern
        assert here == there
    assert "](README.zh-CN.md)" in README.split("\n## ")[0]
    assert "](README.md)" in CHINESE.split("\n## ")[0]


def test_every_heading_that_stands_beside_a_notebook_is_in_it():
    rows = re.findall(r"\]\(\.\./(notebooks/[^)]+)\)(?: \| |, )([^|]+?) \|\n", read(ROOT / "docs" / "article.md"))
    assert len(rows) > 20
    for name, heading in rows:
        cells = nbformat.read(ROOT / name, as_version=4).cells
        titles = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in cells), re.MULTILINE)
        assert heading in titles, (name, heading)


def test_the_prompts_of_the_article_are_those_of_the_code():
    page = read(ROOT / "docs" / "article.md")
    for _, prompt in ARTICLE_PROMPTS.values():
        places = [] if prompt.points is None else prompt.points.tolist()
        places += [] if prompt.box is None else [prompt.box.tolist()]
        for place in places:
            assert f"({', '.join(f'{number:g}' for number in place)})" in page


def test_the_five_prompts_of_the_picture_find_what_they_mean(lite):
    script = runpy.run_path(str(ROOT / "scripts" / "draw_five_prompts.py"))
    panels = [panel for row in script["ROWS"] for panel in row]
    assert [panel.title[0] for panel in panels] == list("12345")
    values = [value for panel in panels for value in panel.decode(lite)[1]]
    assert min(values) > 0.8
    assert sorted(values)[1] > 0.87


def test_the_animation_is_one_and_small():
    path = ROOT / "docs" / "canvas.webp"
    assert path.stat().st_size < 3e6
    with Image.open(path) as animation:
        assert animation.n_frames > 50
        assert animation.size[0] == 800
        durations = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            animation.load()
            durations.append(animation.info["duration"])
    assert 8 <= sum(durations) / 1000 <= 12


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_weights_are_those_of_the_table(name):
    assert f"{name}, {CHECKPOINTS[name].size:,} bytes | {CHECKPOINTS[name].url} |" in read(ROOT / "docs" / "faq.md")


def test_every_public_name_has_a_row():
    rows = re.findall(r"^\| `(\w+)` \|", read(ROOT / "docs" / "api.md"), re.MULTILINE)
    assert sorted(rows) == sorted(sam_nb.__all__)


def test_the_citation_has_this_version():
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert (citation["title"].split(":")[0], citation["version"]) == ("sam-nb", sam_nb.__version__)


def test_the_workflow_tries_what_is_promised():
    jobs = yaml.safe_load(read(ROOT / ".github" / "workflows" / "test.yml"))["jobs"]
    systems = {*jobs["make"]["strategy"]["matrix"]["os"], jobs["pip"]["runs-on"]}
    assert {system.split("-")[0] for system in systems} == {"ubuntu", "macos", "windows"}
    assert all(job["strategy"]["matrix"]["python"] == ["3.10", "3.x"] for job in jobs.values())
    assert "secrets." not in str(jobs)
