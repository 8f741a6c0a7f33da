"""Run programs with Triton's interpreter: `TRITON_INTERPRET=1 python -m tests.road.interpreted_programs NAME …`.

The last line of the output maps each name to "ok" or to what went wrong.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.road import more_programs, papers, papers_more, surprises, weighings  # noqa: F401 (they fill PROGRAMS)
from tests.road.programs import check


def outcome(name: str) -> str:
    try:
        check(name, "triton", torch.float32)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: outcome(name) for name in sys.argv[1:]}))
