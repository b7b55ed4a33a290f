"""Pictures drawn on the server: they need no script, and a table beside them says the same."""

from collections.abc import Sequence

import segno
from markupsafe import Markup

WIDTH, HEIGHT, BASE = 720, 180, 160
MOST_BARS = 62


def bars(days: Sequence[tuple[int, int]]) -> Markup:
    """Two bars a day, clicks and signups: `(clicks, signups)` each. More than two months are drawn as sums of days."""
    step = -(-len(days) // MOST_BARS) or 1
    groups = [days[at : at + step] for at in range(0, len(days), step)]
    drawn = [(sum(day[0] for day in group), sum(day[1] for day in group)) for group in groups]
    top = max((max(pair) for pair in drawn), default=0) or 1
    slot = WIDTH / max(len(drawn), 1)
    parts = [f'<line class="axis" x1="0" x2="{WIDTH}" y1="{BASE}" y2="{BASE}"/>']
    for number, pair in enumerate(drawn):
        for place, (kind, value) in enumerate(zip(("clicks", "signups"), pair, strict=True)):
            height = (BASE - 10) * value / top
            x, width = slot * number + slot * (0.1 + 0.4 * place), slot * 0.36
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{BASE - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            )
    parts.append(f'<text class="scale" x="0" y="12">{top}</text>')
    return Markup(  # noqa: S704  # numbers alone
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
    )


def qr(address: str) -> Markup:
    """An address as a QR code, black on white in every colour scheme."""
    code = segno.make(address, error="m", micro=False)
    drawn = code.svg_inline(scale=4, border=4, dark="#000", light="#fff", omitsize=True, svgclass="qr")
    return Markup(drawn)  # noqa: S704  # segno draws squares, and writes nothing of the address
