"""The notebooks as tests take them apart: their code cells, what a cell needs of the others, exercises, solutions."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.rglob("[0-9]*.ipynb"))


@dataclass(frozen=True)
class Exercise:
    """An exercise that checks itself.

    Attributes
    ----------
    number : int
    index : int
        Which of the code cells it is.
    source : str
        Its cell; the reader changes what is assigned to `mine`.
    printed : str
        What the cell prints in the saved notebook.
    solution : str, optional
        Code that belongs in place of that assignment.
    """

    number: int
    index: int
    source: str
    printed: str
    solution: str | None

    @property
    def solved(self):
        """The cell's code with the solution in it."""
        assignment = next(node for node in ast.parse(self.source).body if _assigns(node, "mine"))
        lines = self.source.splitlines()
        lines[assignment.lineno - 1 : assignment.end_lineno] = self.solution.splitlines()
        return "\n".join(lines)


def read(path):
    """Return a notebook's cells."""
    return nbformat.read(path, as_version=4).cells


def code_cells(path):
    """Return the code cells that hold code."""
    return [cell for cell in read(path) if cell.cell_type == "code" and cell.source.strip()]


def needed(sources, *chosen):
    """Return the indices of the chosen sources and of all that define what these use, in order."""
    wanted, kept = set(), []
    for index in range(max(chosen), -1, -1):
        defined = _names(sources[index], ast.Store) & wanted
        if defined or index in chosen:
            wanted = (wanted - defined) | _names(sources[index], ast.Load)
            kept.insert(0, index)
    return kept


def players(path):
    """Return the index among all cells of each that makes a figure to play with."""
    return [index for index, cell in enumerate(read(path)) if cell.cell_type == "code" and "play(" in cell.source]


def exercises(path):
    """Return a notebook's exercises that have a cell with `mine = ...`, with their solutions."""
    cells, found, number = read(path), [], None
    seen = -1
    for cell in cells:
        if cell.cell_type == "markdown":
            numbers = re.findall(r"^\*\*(\d+)\. ", cell.source, re.MULTILINE)
            number = int(numbers[-1]) if numbers else number
            continue
        seen += bool(cell.source.strip())
        if any(_assigns(node, "mine") for node in ast.parse(cell.source).body):
            printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
            found.append(Exercise(number, seen, cell.source, printed, _solutions(cells).get(number)))
    return found


def _solutions(cells):
    """Return the code of the folded solutions by number: "**1.** words", then a block of Python."""
    folded = "\n".join(cell.source for cell in cells if "<summary>Solutions</summary>" in cell.source)
    parts = re.split(r"^\*\*(\d+)\.\*\*", folded, flags=re.MULTILINE)[1:]
    blocks = {
        int(number): re.search(r"```python\n(.*?)```", text, re.DOTALL)
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {number: block.group(1).rstrip() for number, block in blocks.items() if block}


def _assigns(node, name):
    return isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets)


def _names(source, context):
    """Return the names that a cell stores (imports, functions and changed objects included) or loads."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            names.add(node.id)
        elif context is ast.Store and isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif context is ast.Store and isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif context is ast.Store and isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            names |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return names
