"""What the forensics study writes: tables on the terminal, Markdown, JSON and figures."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.evaluation import Estimate
from assay.files import atomic_folder
from assay.forensics.config import TRAINING_GENERATOR
from assay.forensics.zoo import GENERATORS
from assay.studies.forensics import METRICS, PRETRAINING, PRIMARY, SIMULATED, UPSAMPLERS, ArmResult, Group, Judgement
from assay.studies.tables import markdown_table, print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console

_COLOURS: dict[Group, str] = {
    "baseline": "#555555",
    "FrePGAN": "#d1495b",
    "fingerprint": "#3b6ea5",
    "BiHPF": "#2a9d5c",
}
_WITH_INTERVAL = (PRIMARY, "unseen_accuracy_at_half", "unseen_accuracy")


def arm_columns() -> list[str]:
    """Return the heads of the table of arms."""
    return ["arm", *(f"{title} %" for title in METRICS.values()), "seconds"]


def arm_cells(result: ArmResult) -> list[str]:
    """Return a row of the table of arms: percent, for the leading metrics with their interval."""
    numbers = [
        result.estimate(name).percent(1) if name in _WITH_INTERVAL else _percent(result.estimate(name))
        for name in METRICS
    ]
    return [_name(result), *numbers, f"{result.seconds:.1f}"]


def claim_cells(judgement: Judgement) -> list[str]:
    """Return a claim, its verdict, and the difference in percentage points.

    Example:
        >>> from assay.studies.forensics import Claim
        >>> claim = Claim("FrePGAN has a higher unseen AP than RGB", "frepgan", "rgb")
        >>> claim_cells(Judgement(claim, Estimate(0.02, 0.01, 0.03, 0.95), "holds"))[1:]
        ['holds', '2.0 [1.0, 3.0]']
    """
    return [judgement.claim.text, judgement.verdict, judgement.difference.percent(1)]


def print_arms(console: "Console", results: Sequence[ArmResult]) -> None:
    """Print what was measured of every arm."""
    print_table(console, "Arms, in percent", arm_columns(), [arm_cells(result) for result in results])


def print_claims(console: "Console", judgements: Sequence[Judgement]) -> None:
    """Print every claim with its verdict."""
    title = "Claims: verdict and paired difference in percentage points"
    print_table(console, title, ("claim", "verdict", "difference"), [claim_cells(one) for one in judgements])


def write_study(
    folder: Path, design: dict[str, Any], results: Sequence[ArmResult], judgements: Sequence[Judgement]
) -> None:
    """Write ``forensics.json``, ``README.md`` and the figures into a folder, atomically.

    Args:
        folder: replaced as a whole.
        design: what was run, for the record.
        results: the arms.
        judgements: the claims.
    """
    with atomic_folder(folder) as target:
        record = {
            "study": "forensics",
            "design": design,
            "arms": [_arm_record(result) for result in results],
            "claims": [
                {**asdict(one.claim), "difference": one.difference.as_dict(), "verdict": one.verdict}
                for one in judgements
            ],
        }
        (target / "forensics.json").write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        (target / "README.md").write_text("\n".join(_markdown(design, results, judgements)) + "\n")
        figures = {"unseen-ap.png": primary_figure(results), "generators.png": generator_figure(results)}
        if any(result.arm.shifted for result in results):
            figures["shifts.png"] = shift_figure(results)
        for name, figure in figures.items():
            figure.savefig(target / name, dpi=130, metadata={"Software": None})


def primary_figure(results: Sequence[ArmResult]) -> "Figure":
    """Draw the primary metric of every arm with its interval, by group; a line marks plain RGB."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 0.27 * len(results) + 1.1), layout="constrained")
    axes = figure.subplots()
    for height, result in enumerate(reversed(results)):
        estimate, colour = result.estimate(PRIMARY), _COLOURS[result.arm.group]
        axes.plot([100 * estimate.low, 100 * estimate.high], [height, height], color=colour, linewidth=2)
        axes.plot(100 * estimate.value, height, "o", color=colour, markersize=6)
    for result in results:
        if result.arm.key == "rgb":
            axes.axvline(100 * result.estimate(PRIMARY).value, color="#999999", linewidth=1, linestyle="--")
    _name_rows(axes, list(reversed(results)))
    axes.set_xlabel("mean AP over unseen generators, %")
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def generator_figure(results: Sequence[ArmResult]) -> "Figure":
    """Draw the AP of every arm on every generator as a heat map; the first column is the seen one."""
    metrics = {_generator_label(name): f"ap/{name}" for name in _generators(results)}
    return _heat_map("AP %, real against each generator; the first is seen", results, metrics)


def shift_figure(results: Sequence[ArmResult]) -> "Figure":
    """Draw the accuracy of every arm that was judged under shifts as a heat map; the first column is unshifted."""
    shifted = [result for result in results if result.arm.shifted]
    metrics = {"none": "seen_accuracy"}
    metrics |= {f"trained on {n} others": f"category_accuracy/{n}" for n in _suffixes(shifted[0], "category_ap/")}
    metrics |= {name: f"shift_accuracy/{name}" for name in _suffixes(shifted[0], "shift_ap/")}
    return _heat_map("Accuracy % at the threshold under shifts, seen kind of generator", shifted, metrics)


def _heat_map(title: str, results: Sequence[ArmResult], metrics: dict[str, str]) -> "Figure":
    """Draw metrics in percent, arms down and ``metrics`` (by label) across, in colours from chance to perfect."""
    from matplotlib.figure import Figure

    values = 100 * np.array([[one.replicates[metric].values.mean() for metric in metrics.values()] for one in results])
    figure = Figure(figsize=(0.62 * len(metrics) + 3.6, 0.27 * len(results) + 1.9), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, cmap="viridis", vmin=50, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value < 80 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(metrics)), list(metrics), rotation=35, ha="right", rotation_mode="anchor", fontsize=9)
    _name_rows(axes, results)
    axes.axvline(0.5, color="white", linewidth=3)
    figure.suptitle(title, fontsize=10)
    return figure


def _name_rows(axes: "Axes", results: Sequence[ArmResult]) -> None:
    axes.set_yticks(range(len(results)), [_name(result) for result in results], fontsize=9)
    for label, result in zip(axes.get_yticklabels(), results, strict=True):
        label.set_color(_COLOURS[result.arm.group])


def _markdown(design: dict[str, Any], results: Sequence[ArmResult], judgements: Sequence[Judgement]) -> list[str]:
    return [
        "# Study: detectors of generated images",
        "",
        f"Command: `{design['command']}`",
        "",
        *_introduction(design, results),
        "",
        "## Claims",
        "",
        "Verdict, then the paired difference in percentage points with its 95 % interval.",
        "",
        *markdown_table(("claim", "verdict", "difference"), [claim_cells(one) for one in judgements]),
        "",
        "## Arms",
        "",
        *markdown_table(arm_columns(), [arm_cells(result) for result in results]),
        "",
        "On unseen generators, but for the two columns that say seen. Acc is the mean of those on real and on "
        "generated images, at the threshold that was chosen on validation images of the seen generator, or on the "
        "method's own simulations where it trains on real images alone. Seconds: of one training, of processor time.",
        "",
        "![Mean AP over unseen generators, by arm](unseen-ap.png)",
        "",
        "Points: mean over seeds; bars: 95 % interval; dashed: plain RGB.",
        "",
        "![AP of every arm on every generator](generators.png)",
        *_sharing(results),
        *_shifts(results),
        *_limits(design),
    ]


def _introduction(design: dict[str, Any], results: Sequence[ArmResult]) -> list[str]:
    unseen = len(_generators(results)) - 1
    lines = [
        f"Data: {design['data']}. Every detector is trained on {design['train']:,} real images and as many of the "
        f"generator {_generator_label(TRAINING_GENERATOR)}, or on the real ones alone, with the same network and the "
        f"same number of steps, and tested on {design['test']:,} real images and as many of each of {unseen} unseen "
        "generators. Generators learn from the half of the training images that no detector sees. Both classes go "
        f"through the same rounding and the same encoding ({design['codec'].upper()}).",
        "",
        f"Seeds: {design['generator_seeds']} of the generators, each with its own draw of real images, times "
        f"{design['detector_seeds']} of the detectors. Primary metric, written down before: mean average precision "
        "(AP) over the unseen generators, half of the images real. A verdict compares the paired 95 % bootstrap "
        "interval (generator seed as the outer unit, then detector seeds and test images) with zero: *holds* in the "
        "claimed direction, *refuted* in the other, else *undecided*. No correction for the number of claims.",
    ]
    if design["attempts"]:
        told = "; ".join(f"{name}: {', '.join(map(str, counts))}" for name, counts in design["attempts"].items())
        lines += ["", f"Generators that collapsed were trained again with another seed; trainings by seed: {told}."]
    return lines


def _sharing(results: Sequence[ArmResult]) -> list[str]:
    """The reading without leakage: which generators share an up-sampler with a fingerprint simulator."""
    simulators = [result for result in results if result.arm.key in SIMULATED]
    if not simulators:
        return []
    others = [result for result in results if result.arm.key in ("rgb", "log-fft", "npr")]
    names = _generators(results)
    rows = []
    for name in names:
        cells = [
            _percent(one.estimate(f"ap/{name}")) + (" (shared)" if _shares(one, name) else "") for one in simulators
        ]
        plain = [_percent(one.estimate(f"ap/{name}")) for one in others]
        rows.append([f"{_generator_label(name)}, {' and '.join(UPSAMPLERS[name])}", *cells, *plain])
    choices: dict[str, Callable[[ArmResult, str], bool]] = {
        "mean where shared": _shares,
        "mean where not shared": lambda one, name: not _shares(one, name),
    }
    for title, choose in choices.items():
        means = [_mean_ap(one, [name for name in names if choose(one, name)]) for one in simulators]
        rows.append([title, *means, *("–" for _ in others)])
    return [
        "",
        "## Up-samplers that simulator and generator share",
        "",
        "AP % of detectors trained on simulated fingerprints. An up-sampler that is in the simulator as well as in the "
        "tested generator is leakage: only the rows without it say whether a fingerprint generalises.",
        "",
        *markdown_table(["generator", *(_name(one) for one in (*simulators, *others))], rows),
    ]


def _shifts(results: Sequence[ArmResult]) -> list[str]:
    shifted = [result for result in results if result.arm.shifted]
    if not shifted:
        return []
    names = [_name(result) for result in shifted]
    categories = [
        [f"trained on {number}", *(_both(one, "category", f"/{number}") for one in shifted)]
        for number in _suffixes(shifted[0], "category_ap/")
    ]
    colours = [
        [name, *(_both(one, "shift", f"/{name}") for one in shifted)] for name in _suffixes(shifted[0], "shift_ap/")
    ]
    return [
        "",
        "## Category shift",
        "",
        "AP % / accuracy % at the threshold on categories that neither detector nor generator was trained on: a "
        "generator of the seen kind, trained on those.",
        "",
        *markdown_table(["categories", *names], categories),
        "",
        "## Colours and files",
        "",
        "The same on the seen generator, with both classes changed alike.",
        "",
        *markdown_table(["shift", *names], [["none", *(_both(one, "seen", "") for one in shifted)], *colours]),
        "",
        "![Accuracy of the arms under every shift](shifts.png)",
    ]


def _limits(design: dict[str, Any]) -> list[str]:
    return [
        "",
        "## What this can and cannot say",
        "",
        f"Images of {design['data']} and generators of at most half a million parameters show a direction and a "
        "mechanism: which part of a method does the work, and what a simpler detector does as well. They cannot "
        "show the papers' own figures, which come from large images and large generators. With few generator seeds "
        "the outer part of an interval is too narrow by the factor sqrt((S - 1) / S), and verdicts near zero may turn "
        "with another seed. The methods have no released code: details that the papers leave open are our reading, "
        f"marked [ours] in the source. For time, detectors train for {design['detector']['epochs']} epochs and the "
        f"fingerprints' autoencoders for {PRETRAINING}, half of the method's default: a longer training may change "
        "the order of the arms.",
    ]


def _shares(result: ArmResult, generator: str) -> bool:
    return bool(set(SIMULATED[result.arm.key]) & set(UPSAMPLERS[generator]))


def _mean_ap(result: ArmResult, generators: Sequence[str]) -> str:
    values = [result.estimate(f"ap/{name}").value for name in generators]
    return f"{100 * np.mean(values):.1f}" if values else "–"


def _both(result: ArmResult, kind: str, suffix: str) -> str:
    return " / ".join(_percent(result.estimate(f"{kind}_{metric}{suffix}")) for metric in ("ap", "accuracy"))


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}"


def _name(result: ArmResult) -> str:
    return result.arm.title


def _generators(results: Sequence[ArmResult]) -> list[str]:
    return _suffixes(results[0], "ap/")


def _suffixes(result: ArmResult, prefix: str) -> list[str]:
    return [metric.removeprefix(prefix) for metric in result.replicates if metric.startswith(prefix)]


def _generator_label(name: str) -> str:
    return f"{GENERATORS[name].label} {name}"


def _arm_record(result: ArmResult) -> dict[str, Any]:
    return {
        **asdict(result.arm),
        "options": dict(result.arm.options),
        "estimates": {metric: result.estimate(metric).as_dict() for metric in result.replicates},
        "by_generator_seed": {metric: found.values.tolist() for metric, found in result.replicates.items()},
        "seconds": result.seconds,
    }
