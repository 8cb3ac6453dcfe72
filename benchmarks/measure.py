"""Shared by the benchmarks: run the sides in turns, describe the machine, put the table into README.md."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from tqdm.auto import tqdm

README = Path(__file__).with_name("README.md")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def parser(module_doc):
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=module_doc.splitlines()[0])
    made.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md as well")
    return made


def in_turns(sides, rounds):
    """Run the sides one after another, round by round, so that other load on the machine meets all of them.

    Parameters
    ----------
    sides : dict of str to callable without arguments
    rounds : int
        Measured rounds; one more goes before, for memory to be allocated and kernels to be chosen.

    Returns
    -------
    (dict of str to float, dict of str to object)
        Median seconds of each side, and what it returned last.
    """
    times, returned = {name: [] for name in sides}, {}
    for _ in tqdm(range(rounds + 1), unit="round"):
        for name, run in sides.items():
            started = time.perf_counter()
            returned[name] = run()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}, returned


def printed_by(*arguments):
    """Return the numbers in the last line that a benchmark prints with these arguments, floats."""
    done = subprocess.run([sys.executable, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return [float(number) for number in done.stdout.splitlines()[-1].split()]


def own_peak_memory():
    """Return the most memory that this process has held so far, MB. Linux and macOS: Windows has no such count."""
    if sys.platform == "linux":  # getrusage would count what the parent held when it started this process
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    import resource  # noqa: PLC0415 (Windows has none)

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def machine(*packages):
    """Return one line: processor or graphics card, system, versions of Python, PyTorch and further packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{cores} cores, {_processor()}"
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    return f"{where}, {platform.system()}; {', '.join(versions)}."


def _processor():
    try:
        names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = []
    return f"{names[0]} ({platform.machine()})" if names else platform.processor() or platform.machine()


def report(name, columns, rows, about, write):
    """Print a table in Markdown, and put it into README.md between the marks of its name.

    Parameters
    ----------
    name : str
        README.md holds ``<!-- name -->`` and ``<!-- /name -->``.
    columns : list of str
    rows : list of tuple
    about : str
        What was measured, on what.
    write : bool
    """
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [columns, ["---"] * len(columns), *rows]]
    text = "\n".join([about, "", *lines])
    print(text)
    if write:
        readme = README.read_text(encoding="utf-8")
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(readme):
            raise ValueError(f"{README} has no <!-- {name} --> ... <!-- /{name} -->: add them where the table belongs")
        readme = marked.sub(lambda found: found[1] + text + "\n" + found[2], readme)
        README.write_text(readme, encoding="utf-8", newline="\n")
