"""An executed notebook as HTML, out of which scripts were cleaned, and whatever else acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab import extras, secrets, untrusted
from trainlab.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# What is left of HTML: what gives text its form. No address, no style, no picture from elsewhere
_TAGS = (
    *(
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "caption",
        "code",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
    ),
    *("h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "kbd", "li", "ol", "p", "pre", "s", "small", "span"),
    *(
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "tt",
        "u",
        "ul",
    ),
)
_ATTRIBUTES = {"*": ["class", "title"], "td": ["colspan", "rowspan"], "th": ["colspan", "rowspan"]}
LARGEST = 1 << 24  # bytes of a notebook: a larger one takes minutes


def html(path: Path) -> str:
    """Return an executed notebook's cells and outputs, without style; raise UserError where it is none.

    What stands in it is somebody else's. Tags and attributes of a list alone are left of its HTML, of its
    pictures those that lie in it as PNG or JPEG; whoever shows it still has to keep it from asking for more.
    """
    extras.need("nbconvert", "An executed notebook's page", "nbconvert")
    import nbformat
    from nbconvert.exporters import HTMLExporter

    try:
        text = secrets.without_secrets(untrusted.content(path, LARGEST).decode())
        untrusted.parsed(text.encode())  # refuses what lies too deep inside itself
        notebook = nbformat.reads(text, as_version=4)
        exporter = HTMLExporter(template_name="basic", sanitize_html=True, exclude_anchor_links=True)
        exporter.register_filter("clean_html", _cleaned)  # its own takes titles and lists for markup to show
        return exporter.from_notebook_node(notebook)[0]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    except Exception as error:  # there is one for each way in which something can be no notebook
        fault = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} can't be shown: {fault}. Open it in JupyterLab.") from None


def _cleaned(markup: object) -> str:
    import bleach  # nbconvert's own

    return bleach.clean(str(markup), tags=_TAGS, attributes=_ATTRIBUTES, protocols=(), strip=True)
