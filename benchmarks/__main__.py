"""The project's own measurements by one command, and what became slower since others.

    PYTHONPATH=. python -m benchmarks run --out build/benchmarks          # every table, on this machine's GPU
    PYTHONPATH=. python -m benchmarks run training dispatch               # some of them
    PYTHONPATH=. python -m benchmarks run --budget 580                    # within seconds; again, to go on
    PYTHONPATH=. python -m benchmarks compare OLD.json NEW.json           # exit code 1 if anything is slower
    PYTHONPATH=. python -m benchmarks defaults KEPT.jsonl …               # ship what searches found to be faster

Each table is a script of its own beside this file and runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

from attndsl.bench.record import slower
from attndsl.tuning.database import add, read
from attndsl.tuning.store import shipped_file
from benchmarks.within import GRACE, within

HERE = Path(__file__).parent
TABLES: dict[str, tuple[str, ...]] = {
    "training": (),
    "linear": (),
    "decoding": (),
    "hopper": ("--own", "--jobs", "8"),
    "normalizers": (),
    "family": (),
    "peers": (),
    "dispatch": (),
    "starting": (),
    "eight": (),
    "lengths": (),
    "choices": (),
    "examples": (),
}
"""What each is run with, in the order of what is lost without it: a run that is cut short has the first."""
CARDS = {"hopper": 90, "eight": 90}
"""Tables of kernels that only cards of one capability have."""


def run(tables: list[str], out: Path, seconds: float = math.inf, scripts: Path = HERE) -> int:
    """Run the scripts one after the other until `seconds` are over; 1 if one of them failed or was not reached.

    What this machine's card has no kernels for is said, and is no failure. Each writes a row as it is measured, and
    leaves out what its file has of this card and these versions: to go on, run the same again.
    """
    path = os.pathsep.join(x for x in (str(HERE.parent), os.environ.get("PYTHONPATH")) if x)
    end = time.monotonic() + seconds
    failed = []
    for table in tables:
        if CARDS.get(table, card := capability()) != card:
            print(f"{table}: not of this card (sm_{card})", file=sys.stderr)
            continue
        left = end - time.monotonic() - GRACE
        if left <= 0:
            failed.append(f"{table} (not begun)")
            continue
        command = [
            sys.executable,
            str(scripts / f"{table}.py"),
            "--out",
            str(out / f"{table}.json"),
        ]
        command += TABLES.get(table, ())
        environment = {**os.environ, "PYTHONPATH": path}
        code = within(left, command, environment)
        if code != 0:
            failed.append(table if code else f"{table} (out of time)")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def capability() -> int:
    """The card's; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def compare(old: Path, new: Path, beyond: float) -> int:
    """Print what became slower; 1 if anything did."""
    lines = slower(json.loads(old.read_text()), json.loads(new.read_text()), beyond)
    print("\n".join(lines) or "nothing is slower")
    return int(bool(lines))


def defaults(kept: list[Path], into: Path, gain: float) -> int:
    """Put what was faster than what runs without tuning, by more than a part `gain`, among the package's entries.

    The files are what `examples.py --keep` or `attndsl tune --export` wrote. 1 if there is nothing to put.
    """
    found = [e for path in kept for e in read(path).entries.values()]
    worth = [e for e in found if e.ms < (1 - gain) * e.default_ms]
    if worth:
        add(into, worth)
        Path(f"{into}.lock").unlink(missing_ok=True)
    print(f"{len(worth)} of {len(found)} entries are worth shipping; {into}")
    return int(not worth)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(TABLES))
    runs.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    runs.add_argument("--budget", type=float, default=math.inf, help="seconds")
    compares = commands.add_parser("compare")
    compares.add_argument("old", type=Path)
    compares.add_argument("new", type=Path)
    compares.add_argument("--beyond", type=float, default=0.03, help="a part that is noise")
    ships = commands.add_parser("defaults")
    ships.add_argument("kept", nargs="+", type=Path)
    ships.add_argument("--into", type=Path, default=shipped_file())
    ships.add_argument("--gain", type=float, default=0.03, help="a part that is not worth it")
    args = parser.parse_args(argv)
    if args.command == "defaults":
        return defaults(args.kept, args.into, args.gain)
    if args.command == "compare":
        return compare(args.old, args.new, args.beyond)
    unknown = [t for t in args.tables if t not in TABLES]
    if unknown:
        parser.error(f"no table `{unknown[0]}`; there are {', '.join(TABLES)}")
    return run(args.tables or list(TABLES), args.out, args.budget)


if __name__ == "__main__":
    sys.exit(main())
