"""Jinja as this project uses it: a missing value is an error, and blocks leave no blank lines."""

from __future__ import annotations

from functools import cache

import jinja2

from attndsl.resources import resource_dir


@cache
def environment() -> jinja2.Environment:
    """The templates below `templates/`."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


def render(template: str, **context: object) -> str:
    """The text of one template."""
    return environment().get_template(template).render(context)
