"""The HTML pages: templates, style and player as files beside this one.

A page is one file: pictures, sound, style and script are inside, nothing is fetched, and it opens
from a disk. File names, labels and transcripts are other people's text: everything is escaped, and
the page's own policy lets no script run but the one whose hash it names.
"""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def render(template: str, **values: Any) -> str:
    """A page from `template` (a file of this package) and the values it names."""
    environment = Environment(
        loader=PackageLoader("pipeline", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script, style = _text("player.js"), _text("page.css")
    return environment.get_template(template).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )


def _text(name: str) -> str:
    return files("pipeline.pages").joinpath(name).read_text(encoding="utf-8")
