"""Self-contained HTML reports: one file, no script, no network, everything escaped."""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from assay.files import atomic_write
from assay.reports.values import format_duration, format_value, is_number, measurements

if TYPE_CHECKING:
    from jinja2 import Environment

_LARGEST_SVG = 400_000  # bytes; a figure with more marks than that is smaller, and faster to open, as PNG


class Report:
    """A report built top to bottom, then written as one HTML file that opens anywhere.

    Text, names and numbers are escaped; only ``html`` trusts its input. The same content gives the same
    bytes, so a report never changes a cache key by itself.

    Args:
        title: the page's heading.
        subtitle: one line below it.

    Example:
        >>> report = Report("Calibration", "digits").metrics({"ece": 0.031, "ece_low": 0.02, "ece_high": 0.04})
        >>> page = report.section("Classes").table(["class"], [["<script>"]]).render()
        >>> "<script>" in page, "&lt;script&gt;" in page, "[0.0200, 0.0400]" in page
        (False, True, True)
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[dict[str, Any]] = []

    def section(self, title: str) -> Self:
        """Start a section; with three or more of them the page gets a list of contents."""
        return self._add("section", title=title)

    def text(self, text: str) -> Self:
        """Add paragraphs: Markdown without raw HTML and without images."""
        return self._add("text", content=_markdown().render(text))

    def metrics(self, metrics: Mapping[str, Any]) -> Self:
        """Add tiles of names and values; ``x``, ``x_low`` and ``x_high`` become one tile with its interval."""
        return self._add("metrics", measurements=measurements(metrics))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Self:
        """Add a table; a column of numbers is aligned to the right, and a wide table scrolls in its box.

        Raises:
            ValueError: a row is not as long as ``columns``.
        """
        cells = [list(row) for row in rows]
        for row in cells:
            if len(row) != len(columns):
                raise ValueError(f"A row of {len(row)} cells does not fit {len(columns)} columns: {row}")
        numeric = [bool(cells) and all(is_number(row[k]) for row in cells) for k in range(len(columns))]
        return self._add("table", columns=columns, rows=cells, numeric=numeric, caption=caption)

    def figure(self, figure: Any, caption: str = "") -> Self:
        """Add a matplotlib figure, as SVG or, if that is very large, as PNG; the caller closes the figure."""
        source, width = _figure_uri(figure)
        return self._add("figure", source=source, width=width, caption=caption)

    def images(self, images: Iterable[Any], captions: Sequence[str] = (), caption: str = "") -> Self:
        """Add a grid of pictures.

        Args:
            images: Pillow images, or arrays [H,W], [H,W,1], [H,W,3] or [3,H,W]; uint8, or floats in [0, 1].
            captions: one for each picture, or none at all.
            caption: of the whole grid.
        """
        sources = [_image_uri(image) for image in images]
        if captions and len(captions) != len(sources):
            raise ValueError(f"{len(captions)} captions do not fit {len(sources)} images.")
        labels = list(captions) or [""] * len(sources)
        return self._add("images", images=list(zip(sources, labels, strict=True)), caption=caption)

    def html(self, trusted: str) -> Self:
        """Add markup as it is; never pass anything that came from data."""
        return self._add("html", content=trusted)

    def render(self) -> str:
        """Return the whole page."""
        sections = [block["title"] for block in self._blocks if block["kind"] == "section"]
        return render("report.html", report=self, blocks=self._blocks, sections=sections)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to ``path``, atomically."""
        atomic_write(path, self.render())
        return Path(path)

    def _add(self, kind: str, **content: Any) -> Self:
        self._blocks.append({"kind": kind, **content})
        return self


def render(template: str, **values: Any) -> str:
    """Fill one of this package's templates; every value is escaped unless it is ``Markup``."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("assay.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value"] = format_value
    environment.filters["duration"] = format_duration
    return environment


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).disable(["image", "heading", "lheading"])


def _figure_uri(figure: Any) -> tuple[str, int]:
    """Return the figure as a data URI, and its width in CSS pixels."""
    import matplotlib as mpl

    width = round(figure.get_figwidth() * 96)
    options = {"facecolor": "white", "bbox_inches": "tight"}
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "assay"}):  # without a salt, ids (and so the bytes) are random
        figure.savefig(buffer, format="svg", metadata={"Date": None}, **options)
    if buffer.tell() <= _LARGEST_SVG:
        return _data_uri("image/svg+xml", buffer.getvalue()), width
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=192, metadata={"Software": None}, **options)
    return _data_uri("image/png", buffer.getvalue()), width


def _image_uri(image: Any) -> str:
    """Return a picture as a PNG data URI."""
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.dtype != np.uint8:
            array = np.round(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
        image = Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return _data_uri("image/png", buffer.getvalue())


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
