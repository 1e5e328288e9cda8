"""write_html: a page that shows what was kept, which opens from a file and asks for nothing else.

The page is page.html with everything in it: pictures as data: URIs, the numbers as JSON, the
style and the script. Its content security policy lets it run that script and load nothing.
"""

import base64
import hashlib
import html
from string import Template

from ..output_path import check_not_read, check_output, check_text
from ..panels import Drawing, drawings, is_drawn, report_entries
from ..whole_file import write_file
from .data import page_data
from .text import file_text, row, section, texts, totals


def write_html(
    pictures, report, path, *, question=None, answer=None, title=None, grid=None, processor=None,
    max_parts=32,
):  # fmt: skip
    """Writes one self-contained page: pictures with dropped patches dimmed, heat maps, the words
    that patches speak for, and a slider over how many tokens are kept.

    Args:
        pictures, report, grid, processor, max_parts: as plot takes them.
        path: where to write it, ending in .html or .htm. Once all of the page is there it takes
            the place of a file that was there before.
        question, answer: texts shown at the top.
        title: of the page; None calls it by what it shows.

    Raises:
        TypeError, ValueError: naming the argument, what was given and what is allowed.
        FileNotFoundError: a picture's file is missing.
        OSError: the path cannot be written.
    """
    check_output(path, ["htm", "html"])
    check_not_read(path, pictures)
    for name, text in (("question", question), ("answer", answer), ("title", title)):
        check_text(name, text)
    laid_out = drawings(pictures, report, grid=grid, processor=processor, max_parts=max_parts)
    page = _page(laid_out, report_entries(report), question, answer, title)
    # Half a surrogate pair, as a broken text may have, is no UTF-8: written as its number.
    write_file(path, page.encode("utf-8", "xmlcharrefreplace"))


def _page(laid_out: list[Drawing], entries: list, question, answer, title) -> str:
    style, script = file_text("page.css"), file_text("page.js")
    names = iter(drawing.name for drawing in laid_out)
    rows = [row(entry, next(names) if is_drawn(entry) else None) for entry in entries]
    return Template(file_text("page.html")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        title=html.escape("Visual tokens that were kept" if title is None else title),
        style=style,
        script=script,
        texts=texts(question, answer),
        rows="\n".join(rows),
        totals=totals(entries),
        sections="\n".join(map(section, laid_out)),
        data=page_data(laid_out),
    )


def _hash(text: str) -> str:
    """What a content security policy knows an inline style or script by."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
