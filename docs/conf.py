"""How the documentation is built: ``make docs``, with Sphinx, MyST and furo.

The sources are the Markdown files where they lie, those beside ``docs/`` too, so that a link that
works on the code host works here as well.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import sys
import typing
from pathlib import Path

from docutils.nodes import Element
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).parent.parent
# The code of this checkout, whichever is installed.
sys.path[:0] = [str(ROOT / folder) for folder in ("", "client", "schema")]

from wsschema import messages  # noqa: E402  # from there

# The theme has every logger's INFO printed, and the server's own imports have some to tell.
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "wallet-sync"
author = "wallet-sync contributors"
copyright = author
release = importlib.metadata.version("wallet-sync")

root_doc = "docs/index"
include_patterns = ["*.md", "client/*.md", "docs/**.md", "schema/*.md"]
exclude_patterns = [".*", "**/node_modules", "build"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
nitpicky = True
# The standard library's own documentation is not fetched to link there.
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(sys.stdlib_module_names)})\..*"),
    ("py:class", r"wsclient\.session\.R"),
]
# In a docstring `name` is a name of the code, and must be one.
default_role = "any"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80

html_theme = "furo"
html_title = "wallet-sync"
html_extra_path = ["_site"]
html_static_path = ["_static"]
html_css_files = ["site.css"]

# The contract's members are shown as ``int``, not as ``Annotated[int, Integer(1)]``.
for message in filter(dataclasses.is_dataclass, vars(messages).values()):
    hints = typing.get_type_hints(message)
    message.__annotations__ = message.__init__.__annotations__ = hints


def setup(app: Sphinx) -> None:
    """What Sphinx has no setting for."""
    app.connect("missing-reference", find_alias)


def find_alias(
    app: Sphinx, env: BuildEnvironment, reference: Element, text: Element
) -> Element | None:
    """The alias that a signature names: a type to its reader, and data to Sphinx."""
    if reference.get("reftype") != "class":
        return None
    reference["refspecific"] = True  # wherever it is from
    python, target = env.domains.python_domain, reference["reftarget"]
    return python.resolve_xref(
        env, reference["refdoc"], app.builder, "obj", target, reference, text
    )
