"""Charts as SVG files that stand alone, the same bytes for the same data."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, pairwise
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, PLOT, ROW = 900, 70, 20, 40, 260, 20
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
MOST_TICKS = 6


def rates(title: str, runs: Mapping[str, Sequence[tuple[float, int]]]) -> str:
    """Records a second over time. `runs`: label → seconds since the start, and records readable by then."""
    lines = {label: list(_differences(over_time)) for label, over_time in runs.items()}
    points = [point for line in lines.values() for point in line] or [(1.0, 1.0)]
    most_x, most_y = (max(1e-9, *(point[axis] for point in points)) for axis in (0, 1))
    across, up = (WIDTH - LEFT - RIGHT) / most_x, PLOT / most_y
    parts = []
    for tick in _ticks(most_y):
        y = TOP + PLOT - tick * up
        parts += [_line(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, f"{tick:,.0f}", "end")]
    parts += [_text(LEFT + tick * across, TOP + PLOT + 18, f"{tick:g} s", "middle") for tick in _ticks(most_x)]
    for row, ((label, line), colour) in enumerate(zip(lines.items(), cycle(COLOURS), strict=False)):
        drawn = " ".join(f"{LEFT + x * across:.1f},{TOP + PLOT - y * up:.1f}" for x, y in line)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = TOP + PLOT + 2 * ROW + row * ROW
        parts.append(f'<rect x="{LEFT}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(LEFT + 18, y + 11, label))
    return _svg(title, TOP + PLOT + (3 + len(lines)) * ROW, parts)


def _differences(over_time: Sequence[tuple[float, int]]) -> Iterator[tuple[float, float]]:
    for (since, before), (until, after) in pairwise(over_time):
        if until > since:
            yield until, (after - before) / (until - since)


def _ticks(most: float) -> Iterator[float]:
    """Round numbers from 0 up to `most`."""
    size = 10.0 ** (len(f"{most:.0f}") - 1)
    step = next(part * size for part in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if most / (part * size) <= MOST_TICKS)
    for number in range(int(most / step) + 1):
        yield number * step


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )
    heading = f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, heading, *parts, "</svg>"]) + "\n"
