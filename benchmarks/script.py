"""What the scripts of this folder have in common on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(doc: str | None) -> argparse.ArgumentParser:
    """One that shows a script's docstring as it stands there, examples and all."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add --pictures: the folder of the real pictures that the studio's models learned from."""
    kept = Path("runs/studio-training/pictures")
    parser.add_argument("--pictures", type=Path, default=kept, help="where studio train keeps them")
