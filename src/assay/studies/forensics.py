"""The study of generated-image detectors: FrePGAN, artificial fingerprints and BiHPF against simple detectors.

Every detector is trained on real images and those of one generator, or on real images alone, and judged on
generators that it has not seen. Arms and claims stand here as data, as they were written down before the study ran.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from assay.errors import UserError
from assay.evaluation import Estimate, Replicates
from assay.forensics.upsampling import Upsampling
from assay.forensics.zoo import GENERATORS
from assay.studies.claims import Verdict, judge

Group = Literal["baseline", "FrePGAN", "fingerprint", "BiHPF"]


@dataclass(frozen=True)
class Arm:
    """A detector of the grid.

    Attributes:
        key: short name, for ``--arms``.
        title: in tables and figures.
        group: whose ablation it is.
        method: name in :data:`assay.forensics.methods.METHODS`.
        options: of the method.
        shifted: whether it is also judged where category and colour shift.
    """

    key: str
    title: str
    group: Group
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    shifted: bool = False


_KINDS: tuple[Upsampling, ...] = ("transposed", "nearest", "pixel-shuffle")
"""Kinds of up-sampling that are simulated together; bilinear and 3x3 kernels are left for the test."""


PRETRAINING = 3
"""Epochs of the autoencoders: with the default of six they would take longer than the detectors."""


def _arms(group: Group, method: str, *rows: tuple[str, str, dict[str, Any]], shifted: Sequence[str]) -> list[Arm]:
    return [Arm(key, title, group, method, options, key in shifted) for key, title, options in rows]


ARMS = (
    Arm("rgb", "RGB", "baseline", "rgb", shifted=True),
    *_arms(
        "baseline",
        "rgb-augmented",
        ("rgb-augmented", "RGB, blur and JPEG, p 0.5", {"probability": 0.5}),
        ("rgb-augmented-0.1", "RGB, blur and JPEG, p 0.1", {"probability": 0.1}),
        shifted=["rgb-augmented"],
    ),
    Arm("log-fft", "log FFT", "baseline", "log-fft", shifted=True),
    Arm("radial", "radial spectrum, logistic regression", "baseline", "radial"),
    Arm("npr", "NPR", "baseline", "npr", shifted=True),
    *_arms(
        "FrePGAN",
        "frepgan",
        ("frepgan", "FrePGAN", {}),
        ("frepgan-low-pass", "FrePGAN: low-pass filter instead", {"arm": "low-pass"}),
        ("frepgan-noise", "FrePGAN: matched noise instead", {"arm": "noise"}),
        ("frepgan-frozen", "FrePGAN: G trained first, then frozen", {"arm": "frozen"}),
        ("frepgan-pixel", "FrePGAN: H on pixels", {"domain": "pixel"}),
        ("frepgan-d-input", "FrePGAN: D sees G(x) alone", {"discriminator_input": "perturbation"}),
        shifted=["frepgan"],
    ),
    *_arms(
        "fingerprint",
        "fingerprint",
        *(
            (key, title, {**options, "pretraining_epochs": PRETRAINING})
            for key, title, options in (
                ("fingerprint", "fingerprint: depths 1 to 3", {"depths": [1, 2, 3]}),
                ("fingerprint-1", "fingerprint: depth 1", {"depths": [1]}),
                ("fingerprint-2", "fingerprint: depth 2", {"depths": [2]}),
                ("fingerprint-3", "fingerprint: depth 3", {"depths": [3]}),
                ("fingerprint-kinds", "fingerprint: depths and 3 kinds", {"kinds": list(_KINDS)}),
                ("fingerprint-nearest", "fingerprint: nearest, not transposed", {"kinds": ["nearest"]}),
                ("fingerprint-pixel", "fingerprint: pixels, not spectrum", {"input": "pixel"}),
                ("fingerprint-stride-1", "fingerprint: no up-sampling", {"simulator": "stride-1", "width": 8}),
                ("fingerprint-blur", "fingerprint: blur of the same PSNR", {"simulator": "blur"}),
                ("fingerprint-autogan", "fingerprint: one simulator, AutoGAN", {"simulator": "autogan"}),
            )
        ),
        shifted=["fingerprint"],
    ),
    *_arms(
        "BiHPF",
        "bihpf",
        ("bihpf", "BiHPF: mask", {"pixel": "mask"}),
        ("bihpf-both-convolution", "BiHPF: convolution", {"pixel": "convolution"}),
        ("bihpf-log", "BiHPF: mask, log magnitude", {"output": "log-magnitude"}),
        ("bihpf-frequency", "BiHPF: frequency filter alone", {"pixel": "none"}),
        ("bihpf-mask", "BiHPF: pixel mask alone", {"pixel": "mask", "frequency": False}),
        ("bihpf-convolution", "BiHPF: pixel convolution alone", {"pixel": "convolution", "frequency": False}),
        ("bihpf-mirrored", "BiHPF: mirrored low-pass filters", {"low_pass": True}),
        shifted=["bihpf"],
    ),
)
"""Every arm. RGB is also FrePGAN without a perturbation and BiHPF without a filter."""

UPSAMPLERS = {name: tuple(dict.fromkeys(spec.doublings)) for name, spec in GENERATORS.items()}
"""How each generator doubles the resolution."""

SIMULATED: Mapping[str, tuple[Upsampling, ...]] = {
    "fingerprint": ("transposed",),
    "fingerprint-nearest": ("nearest",),
    "fingerprint-kinds": _KINDS,
    "fingerprint-autogan": ("transposed",),
    "fingerprint-stride-1": (),
}
"""The up-samplers in the simulator of these arms. Where a generator has one of them too, that is leakage."""

METRICS = {
    "unseen_ap": "AP",
    "unseen_auc": "AUC",
    "unseen_accuracy_at_half": "Acc at 0.5",
    "unseen_accuracy": "Acc",
    "accuracy_real": "on real",
    "unseen_accuracy_generated": "on generated",
    "seen_ap": "seen AP",
    "seen_accuracy": "seen Acc",
}
"""What is judged of every arm, the primary metric first; all are shares, and higher is better.

On unseen generators, but for the last two. Acc is at the threshold that the detector chose.
"""

PRIMARY = "unseen_ap"


@dataclass(frozen=True)
class Claim:
    """One arm is better than another by one metric; all metrics of this study are better when higher.

    Attributes:
        text: the claim, as a sentence without its full stop.
        arm: key of the arm that is claimed to be better.
        against: key of the arm that it is compared with.
        metric: a key of :data:`METRICS`, or ``category_ap``, ``colour_ap`` or ``colour_accuracy``: means over those
            shifts.
    """

    text: str
    arm: str
    against: str
    metric: str = PRIMARY


def _against(arm: str, name: str, others: Mapping[str, str]) -> list[Claim]:
    return [Claim(f"{name} has a higher unseen AP than {title}", arm, key) for key, title in others.items()]


CLAIMS = (
    *_against("frepgan", "FrePGAN", {"frepgan-noise": "matched noise", "rgb": "RGB"}),
    Claim("FrePGAN has a higher unseen accuracy at 0.5 than RGB", "frepgan", "rgb", "unseen_accuracy_at_half"),
    Claim("FrePGAN has a higher unseen accuracy at the chosen threshold than RGB", "frepgan", "rgb", "unseen_accuracy"),
    *_against(
        "frepgan",
        "FrePGAN",
        {
            "frepgan-low-pass": "a low-pass filter",
            "frepgan-frozen": "a perturbation trained before the detector",
            "frepgan-pixel": "a perturbation computed from pixels",
            "npr": "NPR",
        },
    ),
    *_against(
        "fingerprint",
        "The union of depths",
        {
            "fingerprint-1": "depth 1",
            "fingerprint-2": "depth 2",
            "fingerprint-3": "depth 3",
            "fingerprint-blur": "blur of the same PSNR",
            "fingerprint-stride-1": "autoencoders without up-sampling",
            "fingerprint-autogan": "a single simulator as in AutoGAN",
            "fingerprint-pixel": "the same from pixels",
            "rgb": "RGB trained on generated images",
            "log-fft": "log FFT trained on generated images",
            "npr": "NPR trained on generated images",
        },
    ),
    *_against("fingerprint-kinds", "Several kinds of up-sampling", {"fingerprint": "one kind"}),
    *_against(
        "bihpf",
        "BiHPF (mask)",
        {
            "bihpf-frequency": "its frequency filter alone",
            "bihpf-mask": "its pixel mask alone",
            "bihpf-mirrored": "the mirrored low-pass filters",
            "log-fft": "log FFT",
            "npr": "NPR",
        },
    ),
    *_against(
        "bihpf-both-convolution",
        "BiHPF (convolution)",
        {
            "bihpf-frequency": "its frequency filter alone",
            "bihpf-convolution": "its pixel convolution alone",
            "log-fft": "log FFT",
        },
    ),
    Claim("BiHPF (mask) has a higher AP than RGB on unseen categories", "bihpf", "rgb", "category_ap"),
    Claim("BiHPF (mask) has a higher AP than RGB in other colours", "bihpf", "rgb", "colour_ap"),
    Claim("BiHPF (mask) has a higher accuracy than RGB in other colours", "bihpf", "rgb", "colour_accuracy"),
)
"""What the papers say, and what each must beat to have said it."""


@dataclass(frozen=True)
class ArmResult:
    """An arm and everything that was measured of it.

    Attributes:
        arm: the detector.
        replicates: by metric: those of :data:`METRICS`, ``ap/<generator>`` for each, and for an arm that is
            judged under shifts ``shift_ap/<shift>``, ``category_ap/<number trained on>`` and the same of
            ``accuracy``, and the means ``colour_ap`` and ``category_ap``.
        seconds: mean time of a training, of one core.
    """

    arm: Arm
    replicates: dict[str, Replicates] = field(repr=False)
    seconds: float

    def estimate(self, metric: str) -> Estimate:
        """Return the mean over generator and detector seeds, with its 95 % interval."""
        return self.replicates[metric].estimate(lowest=0.0, highest=1.0)


@dataclass(frozen=True)
class Judgement:
    """A claim, the paired difference of its two arms, and what follows."""

    claim: Claim
    difference: Estimate
    verdict: Verdict


def choose_arms(keys: Sequence[str] | None = None) -> list[Arm]:
    """Return the arms with these keys, in the order of :data:`ARMS`; all unless told otherwise.

    Raises:
        UserError: there is no such arm.

    Example:
        >>> [arm.title for arm in choose_arms(["npr", "rgb"])]
        ['RGB', 'NPR']
    """
    known = {arm.key: arm for arm in ARMS}
    for key in keys or ():
        if key not in known:
            raise UserError(f"There is no arm {key!r}: the arms are {', '.join(known)}.")
    return [arm for arm in ARMS if keys is None or arm.key in keys]


def decide(results: Sequence[ArmResult], claims: Sequence[Claim] = CLAIMS) -> Iterator[Judgement]:
    """Yield every claim whose two arms were run, with its verdict."""
    by_key = {result.arm.key: result.replicates for result in results}
    for claim in claims:
        pair = [by_key[key].get(claim.metric) for key in (claim.arm, claim.against) if key in by_key]
        if len(pair) == 2 and pair[0] is not None and pair[1] is not None:
            difference = pair[0].minus(pair[1]).estimate()
            yield Judgement(claim, difference, judge(difference, higher_is_better=True))
