"""Numbers, intervals and durations as people read them; shared by the reports and the command line."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Measurement(NamedTuple):
    """One named value, with the ends of its interval where it has one."""

    name: str
    value: Any
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Return the value, and ``[low, high]`` to as many decimals."""
        if self.low is None or self.high is None:
            return format_value(self.value)
        decimals = _decimals(self.value)
        value, low, high = (_fixed(number, decimals) for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def measurements(metrics: Mapping[str, Any]) -> list[Measurement]:
    """Join ``x``, ``x_low`` and ``x_high`` to one measurement; other entries stand alone. [ours].

    A value may also be an object with ``value``, ``low`` and ``high``.

    Example:
        >>> [f"{m.name} {m}" for m in measurements({"ece": 0.0312, "ece_low": 0.02, "ece_high": 0.04, "n": 1000})]
        ['ece 0.0312 [0.0200, 0.0400]', 'n 1,000']
    """
    bounds = {f"{name}_{end}" for name in metrics for end in ("low", "high") if _has_interval(metrics, name)}
    return [_measurement(metrics, name) for name in metrics if name not in bounds]


def format_value(value: Any) -> str:
    """Return up to four significant digits, thousands separated, yes/no for a bool and a dash for nothing.

    Example:
        >>> [format_value(v) for v in (0.91234567, 3e-4, 60000, 1234.5678, True, None, float("nan"), "TS")]
        ['0.9123', '0.0003', '60,000', '1,235', 'yes', '–', 'undefined', 'TS']
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if all(hasattr(value, name) for name in ("value", "low", "high")):
        return str(Measurement("", value.value, value.low, value.high))
    try:
        number = float(value) if not isinstance(value, str) else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        return str(value)
    if number.is_integer() and abs(number) < 1e15:
        return f"{int(number):,}".replace("-", "−")
    return _fixed(number, _decimals(number))


def format_duration(seconds: float) -> str:
    """Return a duration to the precision that helps.

    Example:
        >>> [format_duration(s) for s in (0.04, 3.21, 83.0, 7384.0)]
        ['0.0 s', '3.2 s', '1 min 23 s', '2 h 03 min']
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def is_number(value: Any) -> bool:
    """Say whether a table cell is aligned to the right."""
    return value is None or hasattr(value, "__float__") or hasattr(value, "low")


def _has_interval(metrics: Mapping[str, Any], name: str) -> bool:
    parts = [metrics.get(key) for key in (name, f"{name}_low", f"{name}_high")]
    return all(isinstance(part, int | float) and not isinstance(part, bool) for part in parts)


def _measurement(metrics: Mapping[str, Any], name: str) -> Measurement:
    value = metrics[name]
    if _has_interval(metrics, name):
        return Measurement(name, value, metrics[f"{name}_low"], metrics[f"{name}_high"])
    if all(hasattr(value, end) for end in ("value", "low", "high")):
        return Measurement(name, value.value, value.low, value.high)
    return Measurement(name, value)


def _decimals(number: float) -> int:
    """Return the decimals that show four significant digits, at most four."""
    if not math.isfinite(number) or number == 0:
        return 4
    return min(4, max(0, 3 - math.floor(math.log10(abs(number)))))


def _fixed(number: float, decimals: int) -> str:
    if not math.isfinite(number):
        return "undefined" if math.isnan(number) else ("∞" if number > 0 else "−∞")
    small = 0 < abs(number) < 10.0 ** (1 - decimals)
    text = f"{abs(number):.3g}" if small else f"{abs(number):,.{decimals}f}"
    return f"−{text}" if number < 0 else text
