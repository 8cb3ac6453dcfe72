"""Run the notebooks with an untrained vit_b: only what a good model is needed for may come out otherwise.

A notebook's prose and its checks must hold for every model that `load_sam` may load, but for cells with the tag
``good-model``. An untrained network of Meta's architecture is the hardest case: no mask of it is right. Half an hour on
two CPU cores. Nothing is written; the exit status is 1 if a cell fails, or prints something else, that should not.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import torch
from execute_notebooks import RAISES, chosen_notebooks, client_for
from segment_anything import sam_model_registry

TIMEOUT = 3600  # seconds a cell may take
GOOD_MODEL = "good-model"  # the tag of what holds for a good model only

STARTUP = """
import dataclasses, pathlib
from sam_nb.weights import checkpoints
_path = checkpoints.CHECKPOINTS["vit_b"].path
checkpoints.CHECKPOINTS["vit_b"] = dataclasses.replace(
    checkpoints.CHECKPOINTS["vit_b"], size=_path.stat().st_size, sha256=checkpoints.sha256(_path)
)
"""


def prepare(folder: Path) -> None:
    """Make a home with an untrained vit_b in it, and a profile whose kernels take it for Meta's."""
    home, ipython = folder / "home", folder / "ipython"
    os.environ |= {"SAM_NB_HOME": str(home), "IPYTHONDIR": str(ipython), "SAM_NB_MODEL": "vit_b"}
    (home / "checkpoints").mkdir(parents=True)
    (ipython / "profile_default" / "startup").mkdir(parents=True)
    (ipython / "profile_default" / "startup" / "untrained.py").write_text(STARTUP, encoding="utf-8")
    torch.manual_seed(0)
    torch.save(sam_model_registry["vit_b"]().state_dict(), home / "checkpoints" / "sam_vit_b_01ec64.pth")


def text_of(outputs: list[nbformat.NotebookNode]) -> str:
    """Return what a cell's outputs say."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def broken_cells(path: Path) -> list[str]:
    """Run one notebook and return what came out otherwise in cells that need no good model."""
    notebook = nbformat.read(path, as_version=4)
    saved = [text_of(cell.get("outputs", [])) for cell in notebook.cells]
    client_for(notebook, path, timeout=TIMEOUT, allow_errors=True).execute()
    broken = []
    for number, (cell, before) in enumerate(zip(notebook.cells, saved, strict=True)):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or GOOD_MODEL in tags or RAISES in tags:
            continue
        errors = [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]
        if errors:
            broken.append(f"cell {number} fails: {errors[0]}")
        elif "NBVAL_CHECK_OUTPUT" in cell.source and text_of(cell.outputs) != before:
            broken.append(f"cell {number}: {text_of(cell.outputs)!r}, saved: {before!r}")
    return broken


def main() -> None:
    """Run what the command line names, or all."""
    paths = chosen_notebooks(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        total = 0
        for path in paths:
            broken = broken_cells(path)
            total += len(broken)
            print(f"{path.name}: {'as it should' if not broken else ''}")
            for line in broken:
                print(f"  {line}")
    sys.exit(total > 0)


if __name__ == "__main__":
    main()
