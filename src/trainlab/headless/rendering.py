"""An executed notebook as HTML, out of which scripts were cleaned, and whatever else acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlab import extras, secrets, untrusted
from trainlab.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# What is left of HTML: what gives text its form. No address, no style, no picture from elsewhere
_PICTURES = tuple(f"data:image/{kind};base64," for kind in ("png", "jpeg", "svg+xml"))
_TAGS = (
    "a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li ol p "
    "pre s small span strong sub summary sup table tbody td tfoot th thead tr tt u ul"
)
LARGEST = 1 << 24  # bytes of a notebook: a larger one takes minutes


def html(path: Path) -> str:
    """Return an executed notebook's cells and outputs, without style; raise UserError where it is none.

    What stands in it is somebody else's. Tags and attributes of a list alone are left of it, of its pictures
    those that lie in it; whoever shows it still has to keep it from asking for more.
    """
    extras.need("nbconvert", "An executed notebook's page", "nbconvert")
    import bleach  # nbconvert's own
    import nbformat
    from nbconvert.exporters import HTMLExporter

    try:
        text = secrets.without_secrets(untrusted.content(path, LARGEST).decode())
        untrusted.parsed(text.encode())  # refuses what lies too deep inside itself
        notebook = nbformat.reads(text, as_version=4)
        exporter = HTMLExporter(template_name="basic", sanitize_html=True, exclude_anchor_links=True)
        exporter.register_filter("clean_html", lambda text: text)  # the whole page is cleaned, by one list
        page = exporter.from_notebook_node(notebook)[0]
        return bleach.clean(page, tags=_TAGS.split(), attributes=_stays, protocols=("data",), strip=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from None
    except Exception as error:  # there is one for each way in which something can be no notebook
        fault = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} can't be shown: {fault}. Open it in JupyterLab.") from None


def _stays(tag: str, name: str, value: str) -> bool:
    """Tell whether an attribute is left."""
    if tag == "img":
        return name == "alt" or (name == "src" and value.startswith(_PICTURES))
    return name in ("class", "title") or (tag in ("td", "th") and name in ("colspan", "rowspan"))
