"""Execute the notebooks and save them with their outputs, as a reader on the web sees them.

Run by ``make notebooks``; name files to execute only these. Each notebook runs from its first cell in a fresh kernel.
Figures are saved as JPEG, which keeps a notebook small. Nothing is written if a cell fails or warns, or if an output
holds a path of this computer: what is committed must read the same wherever it was made. A cell with the tag
``raises-exception`` must fail; of its traceback the last line is saved, the error itself.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm.auto import tqdm

from sam_nb.storage import write_bytes

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TIMEOUT = 600  # seconds a cell may take
WIDGET = "application/vnd.jupyter.widget-view+json"
RAISES = "raises-exception"  # the tag by which nbclient lets a cell fail
MAX_BYTES = 800_000  # bytes of a saved notebook
OF_THIS_COMPUTER = (NOTEBOOKS.parent, Path.home(), Path(tempfile.gettempdir()))

KERNEL_CONFIG = """
c.InlineBackend.figure_formats = {"jpeg"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "dpi": 100, "pil_kwargs": {"quality": 78}}
"""


def client_for(notebook: nbformat.NotebookNode, path: Path, **options: object) -> NotebookClient:
    """Return what executes a notebook in a fresh kernel, in the folder of its file."""
    where = {"metadata": {"path": str(path.parent)}}
    return NotebookClient(notebook, kernel_name="python3", record_timing=False, resources=where, **options)


def chosen_notebooks(module_doc: str) -> list[Path]:
    """Return the notebooks that the command line names, or all."""
    parser = argparse.ArgumentParser(description=module_doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="files (default: all in notebooks/)")
    return parser.parse_args().notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))


def execute(path: Path) -> str:
    """Execute one notebook and return its new text; a RuntimeError says what is wrong with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    client_for(notebook, path, timeout=TIMEOUT).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{path.name} writes to stderr: {output.text[:500]}")
        if RAISES in cell.metadata.get("tags", []):
            errors = [output for output in cell.outputs if output.output_type == "error"]
            if not errors:
                raise RuntimeError(f"{path.name}: this cell should have failed: {cell.source[:500]}")
            for error in errors:  # its traceback names files of this computer
                error.traceback = [f"{error.ename}: {error.evalue}"]
        if cell.cell_type == "code":
            # A saved widget has no kernel: readers see the static picture in front of it.
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    text = nbformat.writes(notebook) + "\n"
    for folder in OF_THIS_COMPUTER:
        if json.dumps(f"{folder}{os.sep}")[1:-1] in text:
            raise RuntimeError(f"{path.name} shows a path of this computer, {folder}")
    if len(text.encode()) > MAX_BYTES:
        raise RuntimeError(
            f"{path.name} would take {len(text.encode()):,} bytes, more than {MAX_BYTES:,}: fewer figures"
        )
    return text


def main() -> None:
    """Execute what the command line names, or all."""
    paths = chosen_notebooks(__doc__)
    with tempfile.TemporaryDirectory() as ipython:
        profile = Path(ipython) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text(KERNEL_CONFIG, encoding="utf-8")
        os.environ["IPYTHONDIR"] = ipython
        for path in tqdm(paths, unit="notebook"):
            text = execute(path)
            write_bytes(path, text.encode(), overwrite=True)


if __name__ == "__main__":
    main()
