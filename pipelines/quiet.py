"""What runs first in every Ray worker process of ours: it silences what tells a user nothing."""

from __future__ import annotations

import logging

HOOK = f"{__name__}.quieten"  # for Ray's runtime environment


def quieten() -> None:
    """Ray Train asks the dashboard, which a Ray of our own does not start, whether its controller lives, and
    warns of its absence once a second."""
    cleaner = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
    logging.getLogger(cleaner).setLevel(logging.ERROR)
