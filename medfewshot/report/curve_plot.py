"""A plot of the size of each structure over the frames of a film."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medfewshot.io import atomic_path
from medfewshot.report.dice_plot import FAINT, INK
from medfewshot.report.paint import colour_of


def save_curve_plot(
    path: str | Path,
    sizes: Mapping[str, Sequence[float]],
    *,
    unit: str,
    times_s: Sequence[float] = (),
    marks: Sequence[int] = (),
) -> None:
    """Draw one curve per structure; write a PNG atomically.

    Args:
        path: the file to write.
        sizes: structure -> one size per frame.
        unit: of the sizes.
        times_s: seconds from the first frame; the frames are numbered if they are unknown.
        marks: frames to mark with a vertical line.
    """
    from matplotlib.figure import Figure

    count = len(next(iter(sizes.values())))
    across = list(times_s) or list(range(count))
    figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlabel="time (s)" if times_s else "frame", ylabel=unit)
    for rank, (name, values) in enumerate(sizes.items(), start=1):
        axes.plot(across, values, color=colour_of(rank), label=name, marker=".", linewidth=1.4)
    for frame in marks:
        axes.axvline(across[frame], color=FAINT, linewidth=0.8, linestyle="--")
        axes.annotate(f"frame {frame}", (across[frame], 1), xycoords=("data", "axes fraction"), size=7, color=INK)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
