"""Data Docs as one file: Great Expectations' own sections in a page that needs no network and no script."""

import re
from typing import TYPE_CHECKING

from assay.data.dataset import DatasetInfo
from assay.data.suite import Outcome

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult


def data_docs(info: DatasetInfo, found: list[Outcome], results: "ExpectationSuiteValidationResult") -> str:
    """Return the page: the checks at a glance, then Great Expectations' account of each column.

    Great Expectations' own page loads its style sheets and scripts from five hosts; its sections are plain
    HTML, already escaped, that this page styles by itself.
    """
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaSectionView
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    document = ValidationResultsPageRenderer().render(results).to_json_dict()
    view = DefaultJinjaSectionView()
    sections = [
        view.render({"section": section, "section_loop": {"index": number}})
        for number, section in enumerate(document["sections"][1:], start=1)  # the first repeats what is above
    ]
    environment = Environment(loader=PackageLoader("assay.data"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("data_docs.html")
    return page.render(
        info=info,
        outcomes=found,
        samples=sum(info.splits.values()),
        version=results.meta["great_expectations_version"],
        sections=[Markup(re.sub(r"\n\s*\n+", "\n", section)) for section in sections],  # noqa: S704
    )
