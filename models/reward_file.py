"""What describes a reward ensemble in its folder, read without torch.

So that a command can tell an ensemble of another version before it starts anything. Does not look
into the members' weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowtailor.errors import FlowtailorError

FORMAT = 13
DESCRIPTION = "ensemble.json"


def read_description(folder: Path) -> dict[str, Any]:
    """Raises FlowtailorError where there is no ensemble of this format."""
    try:
        content = json.loads((folder / DESCRIPTION).read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_ensemble(folder, error) from None
    return content


def no_ensemble(folder: Path, error: Exception) -> FlowtailorError:
    reason = str(error).splitlines()[0]
    return FlowtailorError(f"{folder}: no reward ensemble to load ({reason}); run `flowtailor fit-reward`")
