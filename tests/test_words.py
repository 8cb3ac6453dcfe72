"""The project speaks the field's language: words that it does not use in code, messages, notebooks and pages.

A rule refuses a pattern in prose (comments, strings, pages), in names (of everything in Python code), or in the names
of functions alone. An exception is a place where a refused word means something else; each says what.
"""

import ast
import io
import json
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("sam_nb", "tests", "scripts", "benchmarks", "training", "web")
# Not the changelog, which lists names that changed.
PAGES = ("README*.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "benchmarks/README.md", "training/**/*.md")
PROSE, NAMES, FUNCTIONS = "prose", "names", "functions"
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}  # FSTRING_MIDDLE: Python 3.12


class Rule(NamedTuple):
    """A pattern that is refused, where, and what to write instead.

    Prose is one line with single spaces. A name is its words in lower case with single underscores between them, so
    that `_BestScored` is `best_scored`. `under` restricts a rule to a folder.
    """

    where: str
    pattern: str
    instead: str
    under: str = ""


RULES = [
    # The field has one word for each thing.
    Rule(PROSE, r"\bquestions?\b", "prompt"),
    Rule(NAMES, r"\bquestions?\b", "prompt"),
    Rule(PROSE, r"\bwhat (is|was|are|were) asked\b|\b(asks?|asked|asking) about\b", "prompt, decoded"),
    Rule(PROSE, r"(?<![a-z])(?<!ground[ _-])truths?(?![a-z])", "ground truth"),
    Rule(NAMES, r"(?<!ground )\btruths?\b", "ground_truth"),
    Rule(PROSE, r"\b(best|better|worst)[- ]scored\b", "highest-scoring"),
    Rule(PROSE, r"(?<!learning )(?<!downsample )(?<!frame )(?<!at any )\brates?\b", "learning rate"),
    Rule(NAMES, r"(?<!learning )(?<!downsample )\brates?$", "lr"),
    Rule(PROSE, r"\b(objects|pictures|images) a step\b", "batch size"),
    Rule(NAMES, r"^checks$", "validation"),
    Rule(PROSE, r"\bchance weights\b|\bweights by chance\b", "random initialization"),
    Rule(PROSE, r"\b(without|no|more|of|removes?) doubles\b", "non-maximum suppression, duplicates"),
    Rule(NAMES, r"\bdoubles\b", "duplicates"),
    Rule(PROSE, r"\bpieces?\b[^.;:]{0,60}\b(masks?|holes?|objects?|segments?)\b", "connected component"),
    Rule(PROSE, r"\b(masks?|holes?|objects?|segments?)\b[^.;:]{0,60}\bpieces\b", "connected component"),
    Rule(NAMES, r"\bpieces\b", "components"),
    Rule(PROSE, r"\brun[- ]lengths\b", "run-length encoding (RLE)"),
    Rule(PROSE, r"\benlarg\w+", "upscale, resize"),
    Rule(NAMES, r"\benlarg\w+|\w twice$", "upscale, resize"),
    Rule(PROSE, r"\bfill(s|ed|ing)? (a |an |the |its )?(polygon|outline|contour|ring)s?\b", "rasterize"),
    Rule(FUNCTIONS, r"^fill(ed)?$|^fill (polygon|outline|contour|ring)s?$", "rasterize"),
    Rule(PROSE, r"\b(goes|go|going|went) on (from|where)\b", "resume, continue"),
    Rule(PROSE, r"\bstand-?ins?\b|\bstand(s|ing)? in for\b", "static fallback, placeholder"),
    Rule(NAMES, r"\bstand ins?\b", "fallback, fake"),
    Rule(PROSE, r"\bby chance\b", "at random"),
    Rule(NAMES, r"\bby chance\b", "random"),
    Rule(NAMES, r"\bpictures?\b", "image", under="sam_nb"),
    Rule(PROSE, r"^pictures?$", "image", under="sam_nb"),  # keys and columns
    Rule(PROSE, r"(?<!kernel )(?<!server )(?<!browser )(?<!<summary>)\banswer(s|ed|ing)?\b", "masks; decode"),
    Rule(NAMES, r"(?<!kernel )(?<!server )\banswers?\b", "masks, decoded"),
    Rule(NAMES, r"^(most|least) \w+", "max_, min_"),
    # Sentences of today.
    Rule(PROSE, r"\bmend(s|ed|ing)?\b", "fix"),
    Rule(PROSE, r"\bleft out:", "Default: ..."),
    Rule(PROSE, r"\bone of a kind\b|\bprompts of (one|a) kind\b", "of the same shape"),
    Rule(PROSE, r"\b(is|are|was|were|be|been) told\b(?! apart)", "gets, knows"),
    Rule(
        PROSE,
        r"(?<!there )(?<!where )\b(is|are) no "
        r"(image|picture|mask|prompt|file|model|checkpoint|notebook|folder|array|PNG|JSON)s?\b",
        "is not an image",
    ),
    Rule(PROSE, r"\bwhole numbers?\b", "integers"),
]

# (file, pattern of what is found, what it means there)
EXCEPTIONS = [
    ("tests/training/test_trainer.py", r"^rate$", "a field of checkpoints that were saved under an older name"),
]


class Found(NamedTuple):
    """A text and where it begins."""

    where: str
    place: str
    text: str


def plain(text):
    """Return a text on one line, with single spaces."""
    return " ".join(text.split())


def words_of(name):
    """Return the words of a Python name, lower case, single spaces between them."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def of_python(source, place):
    """Yield the comments, strings and names of Python code; adjacent lines of a comment are one."""
    comment, last = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            if comment and line > last + 1:
                yield Found(PROSE, f"{place}:{last}", plain(" ".join(comment)))
                comment = []
            comment.append(token.string.lstrip("#"))
            last = line
        elif token.type in STRINGS:
            text = re.sub(r"^[A-Za-z]*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$", "", token.string)
            yield Found(PROSE, f"{place}:{line}", plain(text))
        elif token.type == tokenize.NAME:
            yield Found(NAMES, f"{place}:{line}", words_of(token.string))
    if comment:
        yield Found(PROSE, f"{place}:{last}", plain(" ".join(comment)))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            yield Found(FUNCTIONS, f"{place}:{node.lineno}", words_of(node.name))


def of_notebook(path, place):
    """Yield what of_python finds in the code cells of a notebook, and the text of the others."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield from of_python(source, f"{place}, cell {number}")
        else:
            yield from of_page(source, f"{place}, cell {number}")


def of_page(text, place):
    """Yield the paragraphs of Markdown, a line of a table by itself, without addresses."""
    text = re.sub(r"https?://\S+|\]\([^)]*\)", "]", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=[|#-])", text):
        yield Found(PROSE, place, plain(paragraph))


def files():
    """Return the files that are searched, as paths relative to the repository."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)]
    found += (ROOT / "notebooks").rglob("*.ipynb")
    found += (path for pattern in PAGES for path in ROOT.glob(pattern))
    return sorted(path.relative_to(ROOT).as_posix() for path in found if ".ipynb_checkpoints" not in path.parts)


def texts(name):
    """Return all texts of a file."""
    path = ROOT / name
    if path.suffix == ".ipynb":
        return list(of_notebook(path, name))
    text = path.read_text(encoding="utf-8")
    return list(of_python(text, name) if path.suffix == ".py" else of_page(text, name))


def refused(name, found):
    """Yield what a file's texts break the rules with: (place, the words, what to write instead)."""
    for rule in RULES:
        if not name.startswith(rule.under):
            continue
        pattern = re.compile(rule.pattern, re.IGNORECASE)
        for text in found:
            if text.where != rule.where:
                continue
            for match in pattern.finditer(text.text):
                start, end = match.span()
                yield text.place, text.text[max(0, start - 30) : end + 30], match[0], rule.instead


def is_allowed(name, words):
    """Tell whether an exception allows these words in this file."""
    return any(name == file and re.search(pattern, words, re.IGNORECASE) for file, pattern, _ in EXCEPTIONS)


@pytest.mark.parametrize("name", files())
def test_a_file_speaks_the_field_s_language(name):
    broken = [
        f"{place}: {words!r}: instead of ...{around}..., write: {instead}"
        for place, around, words, instead in refused(name, texts(name))
        if not is_allowed(name, words)
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_every_exception_is_needed():
    for name, pattern, reason in EXCEPTIONS:
        assert reason
        hits = [words for _, _, words, _ in refused(name, texts(name))]
        assert any(re.search(pattern, words, re.IGNORECASE) for words in hits), (name, pattern)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("# the truth\n", 1),
        ("# the ground\n# truth\n", 0),
        ("ground_truth = groundTruth = 1\n", 0),
        ("truth_mask = street_truths = 1\n", 2),
        ('"""Fill a polygon."""\ncv2.fillPoly(image, points, fill=1)\n', 1),
        ("def fill(shape):\n    return filled(shape)\n", 1),
        ("# weights by random initialization, frame rate, learning rates\n", 0),
        ("lr = base_rate = iterate = 0.1\n", 1),
        ('message = f"{path} is no image"\n', 1),
        ('message = f"there is no image {path}"\n', 0),
        ("class _Answers:\n    answer = 1\n", 2),
        ("# the server answers, the kernel answers\n", 0),
        ("# the mask has three pieces; a piece of one photograph\n", 1),
        ("# run-length encoding, in run lengths\n", 1),
        ("# what can be told apart, and is told\n", 1),
        ('# "whole" and "numbers"\nnumber_most = most_masks = 0\n', 1),
    ],
)
def test_the_rules_find_what_they_mean_and_no_more(source, count):
    assert len(list(refused("tests/example.py", list(of_python(source, "example"))))) == count
