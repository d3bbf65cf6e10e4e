from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from assay.files import write_json
from assay.reports import Report
from assay.reports.records import Node, Output, Run, State, Task
from assay.reports.run import champion, embedded_figures, write_run_report

matplotlib.use("Agg")
import matplotlib.pyplot as plt

START = datetime(2026, 11, 3, 9, tzinfo=UTC)
STEPS = ("Import data", "Validate data", "Pretrain", "Calibrate", "Evaluate", "Gate", "Promote")


def _task(folder: Path, number: int, title: str, state: State) -> Task:
    """A finished task with a log, metrics with an interval, a model and a report with one figure."""
    name = title.lower().replace(" ", "-")
    place = folder / "artifacts" / name
    (place / "model").mkdir(parents=True)
    (place / "model" / "weights.txt").write_text("w")
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / f"{name}.log").write_text("epoch 1 loss 0.5 " + "wide " * 80 + "\n<script>alert(1)</script>\n")
    figure, axes = plt.subplots(figsize=(9, 4))
    axes.plot([1, 3, 2])
    Report(title).figure(figure, f"Loss of {title}").write(place / "report")
    plt.close(figure)
    metrics = {"accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "a_very_long_metric_name_of_a_class": 0.1}
    outputs = {
        "model": Output(type="system.Model", uri=str(place / "model")),
        "report": Output(type="system.HTML", uri=str(place / "report")),
        "metrics": Output(type="system.Metrics", uri=str(place / "metrics"), metadata=metrics),
    }
    if title == "Gate":
        outputs["passed"] = Output(type="parameter", value=True)
    if title == "Promote":
        outputs["metrics"] = Output(type="system.Metrics", metadata={"champion": 4, "previous_champion": 3})
    return Task(
        name=name,
        node=name,
        title=title,
        state=state,
        started=START + timedelta(seconds=10 * number),
        finished=START + timedelta(seconds=10 * number + 75),
        log=f"logs/{name}.log",
        outputs={} if state == State.FAILED else outputs,
    )


def _run(folder: Path, failing: str = "") -> Run:
    """A run of seven steps in a row, up to the one that fails."""
    folder.mkdir()
    ids = [title.lower().replace(" ", "-") for title in STEPS]
    nodes = [Node(id=ids[k], title=STEPS[k], depends=ids[max(0, k - 1) : k]) for k in range(len(STEPS))]
    run = Run(
        id=folder.name,
        pipeline="classification",
        state=State.FAILED if failing else State.SUCCEEDED,
        started=START,
        finished=START + timedelta(seconds=200),
        parameters={
            "dataset": "<script>alert(1)</script>",
            "training": {"epochs": 5},
            "data": {},
            "model_name": "classifier",
        },
        revision="0123456789abcdef0123456789abcdef.dir",
        git_commit="f" * 40,
        image="assay-python:0.1.0-0123456789ab",
        command="assay run classification --set " + "x" * 120,
        nodes=nodes,
    )
    for number, title in enumerate(STEPS):
        run.tasks.append(_task(folder, number, title, State.FAILED if title == failing else State.SUCCEEDED))
        if title == failing:
            run.error, run.failed_task = "The labels <b> are wrong: correct them.", run.tasks[-1].name
            break
    write_json(folder / "run.json", run.model_dump(mode="json"))
    (folder / "pipeline.yaml").write_text("root: {}\n")
    return run


class Links(HTMLParser):
    """The addresses of a page, by the attribute that holds them, and its ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src"):
                self.addresses.append(value)
            elif name == "id":
                self.ids.add(value)


@pytest.fixture(scope="module")
def succeeded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "classification-20261103-090000-aaaa"
    return write_run_report(_run(folder), folder)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "classification-20261103-100000-bbbb"
    return write_run_report(_run(folder, "Calibrate"), folder)


@pytest.mark.parametrize("which", ["succeeded", "failed"])
def test_every_link_leads_to_a_file_in_the_folder_or_a_place_on_the_page(which, request):
    report = request.getfixturevalue(which)
    page = Links(report.read_text())
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids
        elif not address.startswith("data:"):
            assert (report.parent / address).resolve().is_relative_to(report.parent)
            assert (report.parent / address).exists()
    assert "script" not in page.tags
    assert "b" not in page.tags


def test_the_page_tells_the_whole_run(succeeded):
    page = succeeded.read_text()
    for text in ("Champion: classifier version 4", "training.epochs", "[0.8800, 0.9200]", "1 min 15 s", "f" * 40):
        assert text in page
    assert page.count("Loss of Evaluate") == 2, "as the figure's caption and its alternative text"
    assert Links(page).tags.count("svg") == 2, "once across for a desktop, once down for a phone"


def test_a_failed_run_shows_its_sentence_the_log_and_what_did_not_run(failed):
    page = failed.read_text()
    assert "The labels &lt;b&gt; are wrong: correct them." in page
    assert "<details open>" in page
    assert "Not run: Evaluate, Gate, Promote." in page


def test_the_report_survives_the_artifacts(succeeded):
    copies = {path.name for path in (succeeded.parent / "reports").iterdir()}
    assert copies == {f"{title.lower().replace(' ', '-')}-report.html" for title in STEPS}


def test_a_page_that_reaches_out_is_linked_but_not_shown_inside(tmp_path):
    folder = tmp_path / "run"
    run = _run(folder)
    Path(run.tasks[1].outputs["report"].uri).write_text('<script src="https://example.org/x.js"></script>')
    page = write_run_report(run, folder).read_text()
    assert 'href="reports/validate-data-report.html"' in page
    assert 'src="reports/validate-data-report.html"' not in page
    assert 'src="reports/pretrain-report.html"' in page


def test_a_folder_of_pages_is_copied_whole(tmp_path):
    folder = tmp_path / "run"
    run = _run(folder)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.html").write_text("<h1>Data Docs</h1>")
    run.tasks[1].outputs["report"] = Output(type="system.HTML", uri=str(docs))
    page = write_run_report(run, folder).read_text()
    assert 'href="reports/validate-data-report/index.html"' in page
    assert (folder / "reports" / "validate-data-report" / "index.html").is_file()


def test_a_gate_that_was_not_passed_is_said(tmp_path):
    run = _run(tmp_path / "run")
    run.tasks = run.tasks[:-1]
    run.tasks[-1].outputs["passed"].value = False
    run.tasks[-1].outputs["reasons"] = Output(type="parameter", value="Accuracy is 0.5, but must be at least 0.8.")
    assert champion(run) == "Not promoted. Accuracy is 0.5, but must be at least 0.8."


def test_figures_are_found_in_reports_and_nowhere_else(succeeded):
    (figure,) = embedded_figures((succeeded.parent / "reports" / "evaluate-report.html").read_text())
    assert figure.caption == "Loss of Evaluate"
    assert figure.source.startswith("data:image/svg+xml")
    assert embedded_figures('<figure><img src="https://example.org/x.png"></figure>') == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["succeeded", "failed"])
def test_the_page_fits_and_is_silent_in_a_browser(chromium, request, which, width, scheme):
    report = request.getfixturevalue(which)
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    for summary in page.query_selector_all("summary"):
        if summary.evaluate("element => !element.parentElement.open"):
            summary.click()
    page.wait_for_load_state("load")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert messages == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert len(page.query_selector_all("svg.dag >> visible=true")) == 1
    frame = page.frame(url="**/pretrain-report.html")
    assert frame.query_selector("h1").inner_text() == "Pretrain"
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert _lowest_contrast(page) >= 4.5
    page.close()


def _lowest_contrast(page) -> float:
    """The lowest WCAG contrast of a text with the nearest opaque background behind it."""
    return page.evaluate(
        """() => {
        const channels = text => text.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
        const behind = element => {
            for (let node = element; node; node = node.parentElement) {
                const colour = channels(getComputedStyle(node).backgroundColor);
                if (colour.length < 4 || colour[3] === 1) return colour;
            }
            return [255, 255, 255];
        };
        let lowest = 21;
        for (const element of document.querySelectorAll("body *:not(svg *)")) {
            const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
            if (!own || !element.getClientRects().length) continue;
            const [a, b] = [light(channels(getComputedStyle(element).color)), light(behind(element))];
            lowest = Math.min(lowest, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
        }
        return lowest;
    }"""
    )
