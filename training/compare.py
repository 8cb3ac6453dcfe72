"""Decide whether new weights are better than old ones, from the results of `training.evaluate`: one command.

Better means: the mean over the sets of `DECISIVE` is significantly higher (the 95 % interval of the difference lies
above 0), and none of `GUARDED` is lower in any set by more than `MAX_FALL`. A single click is not guarded: it does not
say which of the objects under it is meant. The street's prompts are shown and do not count.

The intervals are those of a paired bootstrap (Efron and Tibshirani, "An introduction to the bootstrap", 1993): the
cases of each set are resampled with replacement, the same ones for old and new weights; where a set's mean is one over
sources, within each source. So they say how much of a difference depends on the choice of objects, and nothing about
other sources or another training run.

Weights of an older architecture are evaluated with the `sam_nb` of their time beside today's `training`, so that both
get the same cases.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.measures import mean_over_groups

DECISIVE = ("box", "1 click", "oracle of three", "3 clicks")
GUARDED = ("box", "oracle of three", "3 clicks")
SHOWN = ("box and negative click", "clicks needed", "not reached", "raggedness")  # beside the decisive ones
MAX_FALL = 0.02
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Column:
    """What one column of a results.json holds of one set.

    Attributes
    ----------
    by_source : bool
        As in `training.cases.CaseSet`.
    pixels : dict of str to int
        Area of the ground truth, by case.
    sources : dict of str to str
        By case.
    values : dict of str to dict of str to float
        Measures, by case.
    """

    by_source: bool
    pixels: dict[str, int]
    sources: dict[str, str]
    values: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Row:
    """A measure of a set by both weights; `interval` is that of the difference; None for single prompts."""

    title: str
    measure: str
    old: float
    new: float
    interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float:
        """New less old."""
        return self.new - self.old


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two weights.

    Attributes
    ----------
    rows : list of Row
    overall : Row
        The mean over the sets of the mean of `DECISIVE`.
    objections : list of str
        Why the new weights are not better; empty if they are.
    """

    rows: list[Row]
    overall: Row
    objections: list[str] = field(default_factory=list)


def read_column(path: Path, name: str) -> dict[str, Column]:
    """Return the column of a name of a results.json, by set.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It holds no such column, or no values by case.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a results.json, found no file; run training.evaluate with --out")
    sets = json.loads(path.read_text())
    columns = {}
    for title, results in sets.items():
        if not isinstance(results.get("cases"), list):
            raise ValueError(
                f"{path}, {title}: expected a list of cases with their values, got results of an older version; "
                "evaluate the weights again"
            )
        # GrabCut takes boxes only, and the street's clicks go to models only: cases without values are skipped.
        cases = [case for case in results["cases"] if name in case["values"]]
        if not cases:
            known = ", ".join(results["measures"])
            raise ValueError(f"{path}, {title}: expected a column {name!r}, got {known}; name one of these")
        columns[title] = Column(
            results["by_source"],
            {case["name"]: case["pixels"] for case in cases},
            {case["name"]: case["source"] for case in cases},
            {case["name"]: case["values"][name] for case in cases},
        )
    return columns


def check_comparable(old: dict[str, Column], new: dict[str, Column]) -> None:
    """Raise a ValueError unless two columns have the same sets, and these the same cases."""
    cure = "evaluate both with the same options, packs, seed and version of `training`"
    if old.keys() != new.keys():
        raise ValueError(f"sets: expected those of the old weights, {_listed(old)}, got {_listed(new)}; {cure}")
    for title, one in old.items():
        other = new[title]
        if one.pixels.keys() != other.pixels.keys():
            missing, more = one.pixels.keys() - other.pixels.keys(), other.pixels.keys() - one.pixels.keys()
            raise ValueError(
                f"{title}: expected the {len(one.pixels)} cases of the old weights, got {len(other.pixels)}, without "
                f"{_listed(missing)} and with {_listed(more)} beside them; {cure}"
            )
        for name, pixels in one.pixels.items():
            if other.pixels[name] != pixels:
                raise ValueError(
                    f"{title}, {name}: expected a ground truth of {pixels} pixels, as the old weights had, got "
                    f"{other.pixels[name]}; {cure}"
                )


def _listed(names: Iterable[str]) -> str:
    shown = [repr(name) for name in sorted(names)]
    return ", ".join(shown[:4] + ["..."] * (len(shown) > 4)) or "none"


def compare(old: dict[str, Column], new: dict[str, Column], resamples: int = 10_000, seed: int = 2023) -> Comparison:
    """Compare the columns of old and new weights, from `read_column`.

    Raises
    ------
    ValueError
        They have different sets or cases, or no set has the measures that decide.
    """
    check_comparable(old, new)
    rng = np.random.default_rng(seed)
    rows, means, drawn = [], [], []
    for title, column in old.items():
        pair = _Pair(column, new[title])
        before, after, groups = pair.of(DECISIVE)
        if not groups:
            rows += pair.prompt_rows(title)
            continue
        draws = bootstrap(after - before, groups, resamples, rng)
        of_set = [
            Row(title, measure, *_means(before[:, row], after[:, row], groups), _interval(draws[:, row]))
            for row, measure in enumerate(DECISIVE)
        ]
        means.append([np.mean([row.old for row in of_set]), np.mean([row.new for row in of_set])])
        drawn.append(draws.mean(axis=1))
        for measure in SHOWN:
            before, after, groups = pair.of([measure])
            if groups:
                draws = bootstrap(after - before, groups, resamples, rng)
                of_set.append(Row(title, measure, *_means(before[:, 0], after[:, 0], groups), _interval(draws[:, 0])))
        rows += of_set
    if not means:
        raise ValueError(
            f"nothing to decide on: expected a set with {', '.join(DECISIVE)}, got {_listed(old)}; evaluate "
            "compositions or photographs too"
        )
    overall = Row("mean over the sets", "mean of the four", *np.mean(means, axis=0), _interval(np.mean(drawn, axis=0)))
    return Comparison(rows, overall, _objections(rows, overall))


class _Pair:
    """A set's values by old and new weights, case by case."""

    def __init__(self, old: Column, new: Column) -> None:
        self.old, self.new = old, new

    def of(self, measures: Sequence[str]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[str]]:
        """Return NxM arrays of the cases that have all M measures by both, old and new, and N names of their groups."""
        names = [
            name
            for name in self.old.values
            if all(measure in column.values[name] for measure in measures for column in (self.old, self.new))
        ]
        before, after = (
            np.array([[column.values[name][measure] for measure in measures] for name in names])
            for column in (self.old, self.new)
        )
        return before, after, [self.old.sources[name] if self.old.by_source else "" for name in names]

    def prompt_rows(self, title: str) -> list[Row]:
        """List a row for each case of a set of single prompts, which have no interval."""
        return [
            Row(title, f"{name}, {measure}", value, self.new.values[name][measure])
            for name, values in self.old.values.items()
            for measure, value in values.items()
            if measure in self.new.values[name]
        ]


def _means(before: Sequence[float], after: Sequence[float], groups: Sequence[str]) -> tuple[float, float]:
    return mean_over_groups(before, groups), mean_over_groups(after, groups)


def bootstrap(
    differences: npt.NDArray[np.float64], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return the means that other draws of the same cases would have had.

    Parameters
    ----------
    differences : NxM numpy.ndarray of float64
        Of M measures of N cases: all measures of a case are drawn together.
    groups : sequence of N str
        Cases are drawn within their group, and the mean is that over groups.
    resamples : int
    rng : numpy.random.Generator

    Returns
    -------
    resamples x M numpy.ndarray of float64
    """
    groups = np.asarray(groups)
    means = []
    for group in np.unique(groups):
        rows = differences[groups == group]
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
        means.append(counts @ rows / len(rows))
    return np.mean(means, axis=0)


def _interval(draws: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _objections(rows: list[Row], overall: Row) -> list[str]:
    """List what speaks against the new weights."""
    objections = []
    if overall.difference <= 0:
        objections.append(f"the mean over the sets is not higher ({overall.difference:+.3f})")
    elif overall.interval[0] <= 0:
        objections.append(f"the mean over the sets is not significantly higher ({_shown_interval(overall)})")
    for row in rows:
        # Rounded, because 0.88 - 0.90 is a little below -0.02.
        if row.interval and row.measure in GUARDED and round(row.difference, 9) < -MAX_FALL:
            objections.append(f"{row.title}, {row.measure}: lower by {-row.difference:.3f}, more than {MAX_FALL}")
    return objections


def table(comparison: Comparison, old: str, new: str) -> str:
    """Return the comparison as a Markdown table and the verdict; `old` and `new` head the columns."""
    lines = [f"| set | measure | {old} | {new} | difference | {CONFIDENCE:.0%} interval |", "|---" * 6 + "|"]
    for row in [*comparison.rows, comparison.overall]:
        numbers = f"{row.old:.3f} | {row.new:.3f} | {row.difference:+.3f} | {_shown_interval(row)}"
        lines.append(f"| {row.title} | {row.measure} | {numbers} |")
    verdict = "not better: " + "; ".join(comparison.objections) if comparison.objections else "better"
    return "\n".join([*lines, "", f"{new} against {old}: {verdict}."])


def _shown_interval(row: Row) -> str:
    return "" if row.interval is None else f"{row.interval[0]:+.3f} to {row.interval[1]:+.3f}"


def main() -> None:
    """Compare weights: the command `python -m training.compare`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="results of the old weights, as path/to/results.json:column")
    parser.add_argument("new", help="results of the new weights, in the same form; the file may be the same")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=2023, help="of the bootstrap")
    arguments = parser.parse_args()
    columns, heads = [], []
    for argument in (arguments.old, arguments.new):
        path, colon, name = argument.rpartition(":")
        if not (path and colon and name):
            parser.error(f"expected path/to/results.json:column, got {argument!r}")
        columns.append(read_column(Path(path), name))
        heads.append(name)
    if heads[0] == heads[1]:
        heads = ["old", "new"]
    print(table(compare(*columns, arguments.resamples, arguments.seed), *heads))


if __name__ == "__main__":
    main()
