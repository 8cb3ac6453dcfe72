"""Try damaged files and odd arguments on the package; nothing but its own errors may come of them.

``python -m tests.fuzz --minutes 10`` from the repository's root. Each kind of fault is saved with the input that shows
it, under a name that says target, seed and number; ``--replay FILE`` tries that input again, here and now.
"""

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import MAX_SECONDS, Report, Worker, campaign, input_of, judge
from tests.fuzz.targets import TARGETS

OUT = Path(tempfile.gettempdir()) / "sam-nb-faults"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, help="for all targets together; default: 10, or no limit with --count")
    parser.add_argument("--count", type=int, help="inputs of each target; default: as many as there is time for")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other inputs; default: 0")
    parser.add_argument("--first", type=int, default=0, help="number of the first input; default: 0")
    parser.add_argument("--target", action="append", choices=TARGETS, help="may be repeated; default: all")
    parser.add_argument("--out", type=Path, default=OUT, help=f"folder for faults; default: {OUT}")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try one saved input again")
    return parser.parse_args()


def replay(path: Path) -> int:
    target = TARGETS[path.name.partition("-")[0]]
    start = time.monotonic()
    verdict, details = judge(target, path)
    print(f"{target.name}: {verdict}, {time.monotonic() - start:.1f} s", details, sep="\n")
    return int(bool(details))


def saved(report: Report, out: Path) -> list[str]:
    """Save an input for each kind of fault; return a line about each kind."""
    kinds: dict[str, list[int]] = {}
    for fault in report.faults:
        kinds.setdefault(fault.verdict, []).append(fault.number)
    lines = []
    for verdict, numbers in kinds.items():
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{report.target.name}-{report.seed}-{numbers[0]}{report.target.suffix}"
        path.write_bytes(input_of(report.target, report.seed, numbers[0]))
        lines.append(f"{report.target.name}: {len(numbers)} x {verdict}\n    {path}")
    return lines


def row(*cells: object) -> str:
    name, *numbers = cells
    return f"{name:<14}" + "".join(f"{number:>10}" for number in numbers)


def main() -> int:
    args = arguments()
    if args.replay:
        return replay(args.replay)
    names = args.target or list(TARGETS)
    minutes = args.minutes or (math.inf if args.count else 10)
    count = args.count or sys.maxsize - args.first
    faults = []
    print(row("target", "inputs", "refused", "accepted", "faults", "slowest s", "growth MB"))
    with Worker(MAX_SECONDS) as worker:
        end = time.monotonic() + minutes * 60
        for position, name in enumerate(names):
            seconds = (end - time.monotonic()) / (len(names) - position)
            numbers = range(args.first, args.first + count)
            report = campaign(worker, TARGETS[name], args.seed, numbers, seconds)
            found = report.inputs, report.refused, report.accepted, len(report.faults)
            print(row(name, *found, f"{report.slowest.seconds:.2f}", f"{report.growth / 2**20:.1f}"), flush=True)
            faults += saved(report, args.out)
    print(*faults, sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
