"""Every example's reference.

`CASES["alibi"].make(…)` draws inputs, `.reference(inputs, params)` gives the outputs.
"""

from __future__ import annotations

from tests.examples.case import Case
from tests.examples.references_domains import DOMAINS
from tests.examples.references_normalizers import NORMALIZERS
from tests.examples.references_recurrent import RECURRENT
from tests.examples.references_scores import SCORES
from tests.examples.references_sinks import SINKS
from tests.examples.references_structures import STRUCTURES

SOFTMAX_CASES: dict[str, Case] = {**DOMAINS, **SCORES, **SINKS}
CASES: dict[str, Case] = {**SOFTMAX_CASES, **NORMALIZERS, **STRUCTURES, **RECURRENT}
