"""Grouped bars on a logarithmic scale, as SVG written by hand."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

BAR_PX = 11
GAP_PX = 9
LABEL_PX = 56
WIDTH_PX = 300
"""Width of the bars; the number behind a bar may reach beyond."""
PANEL_PX = LABEL_PX + WIDTH_PX + 64
HEAD_PX = 52
COLOURS = ("#f60", "#47c", "#888", "#2a5")
STYLE = (
    "text{font:11px sans-serif;fill:#333}.title{font-size:13px;font-weight:bold}"
    ".label{text-anchor:end}.axis{stroke:#ddd}.tick{text-anchor:middle;fill:#888}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    rows: dict[str, dict[str, float]]
    """Label → series → value; every row has the same series.  A value of 0 draws no bar."""
    number: Callable[[float], str]
    """How a value is written."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis of whole decades that holds all values of a panel."""

    lowest: int
    highest: int

    @classmethod
    def over(cls, values: list[float]) -> "Scale":
        positive = [value for value in values if value > 0] or [1.0]
        lowest = math.floor(math.log10(min(positive)))
        if 10.0**lowest == min(positive):
            lowest -= 1  # a bar of no length would look like a missing one
        return cls(lowest, max(math.ceil(math.log10(max(positive))), lowest + 1))

    def px(self, value: float) -> float:
        share = (math.log10(value) - self.lowest) / (self.highest - self.lowest)
        return round(share * WIDTH_PX, 1)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.lowest, self.highest + 1)]


def draw(panels: list[Panel]) -> str:
    """An SVG document with the panels side by side."""
    series = list(next(iter(panels[0].rows.values())))
    row_px = len(series) * BAR_PX + GAP_PX
    height = HEAD_PX + len(panels[0].rows) * row_px + 24
    width = PANEL_PX * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *legend(series),
    ]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({place * PANEL_PX},0)">')
        parts += panel_parts(panel, height)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def shortened(decade: float) -> str:
    for power, unit in ((1e6, "M"), (1e3, "k")):
        if decade >= power:
            return f"{decade / power:g}{unit}"
    return f"{decade:g}"


def legend(series: list[str]) -> list[str]:
    parts = []
    for place, (name, colour) in enumerate(zip(series, COLOURS, strict=False)):
        x = LABEL_PX + place * 130
        parts.append(f'<rect x="{x}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 15}" y="17">{escape(name)}</text>')
    return parts


def panel_parts(panel: Panel, height: int) -> list[str]:
    scale = Scale.over([value for row in panel.rows.values() for value in row.values()])
    parts = [f'<text class="title" x="{LABEL_PX}" y="40">{escape(panel.title)}</text>']
    for decade in scale.decades():
        x, bottom = LABEL_PX + scale.px(decade), height - 18
        parts.append(f'<line class="axis" x1="{x}" y1="{HEAD_PX - 4}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{height - 6}">{shortened(decade)}</text>')
    top = HEAD_PX
    for label, row in panel.rows.items():
        middle = top + len(row) * BAR_PX / 2 + 4
        parts.append(f'<text class="label" x="{LABEL_PX - 6}" y="{middle}">{escape(label)}</text>')
        for value, colour in zip(row.values(), COLOURS, strict=False):
            if value > 0:
                length = scale.px(value)
                number = escape(panel.number(value))
                parts.append(
                    f'<rect x="{LABEL_PX}" y="{top}" width="{length}" height="{BAR_PX - 1}" '
                    f'fill="{colour}"/>'
                )
                parts.append(
                    f'<text x="{LABEL_PX + length + 4}" y="{top + BAR_PX - 2}">{number}</text>'
                )
            top += BAR_PX
        top += GAP_PX
    return parts
