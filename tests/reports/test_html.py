import base64
import io
import re
from collections import Counter
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from PIL import Image

from assay.reports import Report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ATTACK = '<script>alert(1)</script><img src=x onerror="alert(2)">'


class Page(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.fixture
def figure():
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.plot([1, 3, 2])
    yield figure
    plt.close(figure)


def _picture(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def test_everything_that_comes_from_data_is_escaped(figure):
    report = Report(ATTACK, ATTACK).section(ATTACK).text(ATTACK).metrics({ATTACK: ATTACK})
    report.table([ATTACK], [[ATTACK]], ATTACK).figure(figure, ATTACK).images([np.eye(4)], [ATTACK], ATTACK)
    page = Page(report.render())
    assert page.tags["script"] == 0
    assert page.tags["img"] == 2
    assert all("onerror" not in image for image in page.images)
    assert page.tags["h1"] == page.tags["h2"] == 1


def test_only_html_is_trusted():
    assert "<em>yes</em>" in Report("t").html("<em>yes</em>").render()
    assert "<em>no</em>" not in Report("t").text("<em>no</em>").render()


def test_nothing_is_loaded_from_anywhere(figure):
    report = Report("t").text("![remote](https://example.org/x.png) [bad](javascript:alert(1))").figure(figure)
    for address in Page(report.render()).addresses:
        assert address.startswith(("data:", "#", "https://example.org/x.png"))
    assert not [image for image in Page(report.render()).images if not image["src"].startswith("data:")]


def test_markdown_is_rendered():
    page = Report("t").text("A **bold** word and `code`.\n\n- one\n- two").render()
    assert "<strong>bold</strong>" in page
    assert "<code>code</code>" in page
    assert Page(page).tags["li"] == 2


def test_the_same_content_gives_the_same_bytes():
    def build() -> str:
        figure, axes = plt.subplots()
        axes.plot([1, 2]), axes.imshow(np.eye(3))
        report = Report("t").figure(figure).images([np.eye(5)]).metrics({"a": 1})
        plt.close(figure)
        return report.render()

    assert build() == build()


def test_a_figure_of_many_marks_becomes_png_and_a_plain_one_stays_svg(figure):
    crowded, axes = plt.subplots()
    axes.scatter(*np.random.default_rng(0).random((2, 20_000)))
    page = Report("t").figure(figure, "few").figure(crowded, "many").render()
    plt.close(crowded)
    few, many = Page(page).images
    assert few["src"].startswith("data:image/svg+xml")
    assert many["src"].startswith("data:image/png")
    assert (few["alt"], many["alt"]) == ("few", "many")
    assert len(page) < 1_500_000


@pytest.mark.parametrize(
    "image",
    [
        np.full((6, 4, 3), [10, 20, 30], np.uint8),
        np.full((6, 4, 3), [10, 20, 30], np.uint8).transpose(2, 0, 1),
        np.full((6, 4, 3), [10, 20, 30], np.uint8) / np.float32(255),
        Image.new("RGB", (4, 6), (10, 20, 30)),
    ],
    ids=["HWC", "CHW", "float", "Pillow"],
)
def test_pictures_of_every_layout_come_out_as_they_went_in(image):
    (element,) = Page(Report("t").images([image], ["a cat"]).render()).images
    picture = _picture(element["src"])
    assert picture.size == (4, 6)
    assert picture.getpixel((1, 1)) == (10, 20, 30)
    assert element["alt"] == "a cat"


def test_grey_pictures_and_values_out_of_range():
    image = np.array([[-1.0, 0.5], [2.0, np.nan]])
    (element,) = Page(Report("t").images([image[None]]).render()).images
    assert np.asarray(_picture(element["src"])).tolist() == [[0, 128], [255, 0]]


def test_a_row_or_a_caption_too_few_is_refused():
    with pytest.raises(ValueError, match="1 cells does not fit 2 columns"):
        Report("t").table(["a", "b"], [[1]])
    with pytest.raises(ValueError, match="1 captions do not fit 2 images"):
        Report("t").images([np.eye(2), np.eye(2)], ["one"])


def test_only_columns_of_numbers_are_aligned_to_the_right():
    page = Report("t").table(["name", "n"], [["a", 1], ["b", np.float32(2.5)]]).render()
    assert re.findall(r'<th scope="col"( class="number")?>(\w+)', page) == [("", "name"), (' class="number"', "n")]


def test_three_sections_make_a_list_of_contents():
    two = Report("t").section("a").section("b")
    assert Page(two.render()).tags["nav"] == 0
    page = Page(two.section("c").render())
    assert page.tags["nav"] == 1
    assert {"#section-1", "#section-2", "#section-3"} <= set(page.addresses)


def test_write_leaves_one_whole_file(tmp_path):
    path = Report("t").write(tmp_path / "deep" / "report.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
