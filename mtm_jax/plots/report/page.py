"""Write view data as one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2

from mtm_jax.plots.report import blocks


def render(title: str, lead: str, sections: Sequence[blocks.Section]) -> str:
    """Fill the template; every text is escaped.

    Args:
        title: of the page.
        lead: the line below it.
        sections: what is shown, in order; those without a block are left out.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mtm_jax.plots.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("template.html")
    shown = [section for section in sections if section.blocks]
    return template.render(title=title, lead=lead, sections=shown)
