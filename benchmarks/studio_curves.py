"""The losses of the studio's training as a picture, from the logs that `flowtailor studio train` keeps.

python benchmarks/studio_curves.py runs/studio-training          # writes docs/images/studio_curves.png
"""

from __future__ import annotations

import json
from pathlib import Path

import script
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flowtailor.studio.recipe import CHECKPOINTS, LORAS

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "studio_curves.png"
# Of each panel: its title, the number that the logs hold, and the logs.
PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "autoencoder: PSNR, dB",
        "psnr",
        ("autoencoder/autoencoder", "autoencoder/decoder", "upscaler/upscaler"),
    ),
    ("checkpoints: squared error of the velocity", "loss", tuple(f"models/{name}" for name in CHECKPOINTS)),
    ("LoRAs: squared error of the velocity", "loss", tuple(f"models/{name}" for name in LORAS)),
    ("scorers: loss", "loss", ("scorers/alignment", "scorers/held_out_alignment", "scorers/fidelity")),
)


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of the training")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, number, logs) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        draw(axes, title, number, [arguments.out / f"{log}.log.jsonl" for log in logs])
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, dpi=110)
    print(f"written: {arguments.picture}")


def draw(axes: Axes, title: str, number: str, logs: list[Path]) -> None:
    """A line for each log, from its own first step; a logarithmic axis where there is much to show."""
    values: list[float] = []
    for log in logs:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        minutes = lines[-1]["seconds"] / 60
        name = log.name.removesuffix(".log.jsonl")
        axes.plot(
            [line["step"] for line in lines],
            shown := [line[number] for line in lines],
            label=f"{name}, {minutes:.0f} min",
            linewidth=1.2,
        )
        values += shown
    if max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=7)


if __name__ == "__main__":
    main()
