"""Where the grammar, the templates and the examples lie, in a source tree and in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def resource_dir(kind: str) -> Path:
    """The folder `grammar`, `templates` or `examples`.

    A wheel ships the three under `attndsl/_resources/`; a checkout keeps them at its top level. The installed copy is
    tried first, so that a stray folder of the same name beside `site-packages/attndsl` is never picked up.
    """
    package = Path(__file__).resolve().parent
    installed = package / "_resources" / kind
    return installed if installed.is_dir() else package.parent / kind
