"""The picture of the modules in the README, held against the imports."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sam_nb

PACKAGE = Path(sam_nb.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

README = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| `(\w+)` \|", README.split("| module | holds |")[1].split("\n\n")[0], re.MULTILINE)

DOORS = {
    "torch": {
        "attention",
        "decoder",
        "efficientnet",
        "embeddings",
        "everything",
        "finetuning",
        "inside",
        "lite",
        "losses",
        "models",
        "unet",
    },
    "torchvision": {"everything"},
    "segment_anything": {"models", "upstream"},
    "PIL": {"formats", "images", "layers"},
    "skimage": {"images"},
    "urllib": {"images"},
    "cv2": {"clicks", "draw", "filters", "layers", "painted", "polygons"},
    "scipy": {"polygons"},
    "matplotlib": {"figures"},
    "pooch": {"checkpoints"},
    "requests": {"checkpoints"},
    "anywidget": {"pointer"},
    "pycocotools": {"everything", "formats"},
    "IPython": {"widget"},
    "ipycanvas": {"widget"},
    "ipywidgets": {"filters", "pointer", "widget"},
}


def imports(module):
    """Return the full names of everything a module imports, anywhere in it."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module)
    return names


def test_every_module_has_a_row():
    assert sorted(TABLE) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_above_it(module):
    inside = {name.removeprefix("sam_nb.") for name in imports(module) if name.startswith("sam_nb")}
    assert inside <= set(TABLE[: TABLE.index(module)])


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_enters_by_its_door(library):
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users == DOORS[library]


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, sam_nb; sam_nb.Prompt, sam_nb.load_image; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded  # the list is a real one
    assert not {"torch", "torchvision", "matplotlib", "cv2", "skimage", "pooch"} & set(loaded)


# What a first mask must not wait for: 5 of 10 seconds went by importing torchvision, for `SamPredictor`.
FIRST_MASK = """
import sys
from sam_nb import load_sam, load_image, Prompt, show
assert not {"torchvision", "torch._dynamo"} & set(sys.modules)
import segment_anything
assert segment_anything.modeling.Sam.__module__ == "segment_anything.modeling.sam"
assert "torchvision" not in sys.modules
from segment_anything import SamPredictor, sam_model_registry
assert "torchvision" in sys.modules
assert segment_anything.SamPredictor is SamPredictor and "SamPredictor" in dir(segment_anything)
from segment_anything.modeling import Sam
assert isinstance(load_sam("lite").model, Sam)
try:
    segment_anything.SamPredicter
except AttributeError as error:
    print(error)
"""


def test_segment_anything_waits_with_torchvision_until_it_is_asked():
    done = subprocess.run([sys.executable, "-c", FIRST_MASK], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("module 'segment_anything' has no attribute 'SamPredicter'\n")


# torchvision that cannot be imported is told each time, and not hidden behind a half-made package.
BROKEN = """
import sys
import sam_nb.model.sam
sys.modules["torchvision"] = None
for _ in range(2):
    try:
        from segment_anything import SamPredictor
    except ImportError as error:
        print(error)
del sys.modules["torchvision"]
from segment_anything import SamPredictor
"""


def test_a_broken_torchvision_is_told():
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, check=True)
    assert done.stdout.count("No module named") == 2


def test_public_names_resolve_and_are_listed():
    for name in sam_nb.__all__:
        assert getattr(sam_nb, name) is not None
        assert name in dir(sam_nb)
    with pytest.raises(AttributeError, match=r"has no attribute 'load_sma'; it has .*load_sam"):
        sam_nb.load_sma  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_no_assert_and_no_stray_print(module):
    """A reader's mistake gets an error with words; what is said in passing is `load_sam`'s one line."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    prints = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert len(prints) == (1 if module == "models" else 0)
