"""Every example's reference.

`CASES["alibi"].make(…)` draws inputs, `.reference(inputs, params)` gives the outputs.
"""

from __future__ import annotations

from tests.examples.case import Case
from tests.examples.references_domains import DOMAINS
from tests.examples.references_scores import SCORES
from tests.examples.references_sinks import SINKS

SOFTMAX_CASES: dict[str, Case] = {**DOMAINS, **SCORES, **SINKS}
CASES: dict[str, Case] = dict(SOFTMAX_CASES)
