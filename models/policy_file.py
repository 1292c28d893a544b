"""What describes a policy or an adapter in its folder, read without torch.

So that a command can tell one of another version, which would load and design worse, before it starts
anything. Does not look into weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowtailor.errors import FlowtailorError

# 2: adapters act from the last token of a prompt on; 3: labels told apart; 4: two classes where not sure
POLICY_FORMAT = 4
DESCRIPTION = "policy.json"


def write_description(folder: Path, **facts: Any) -> None:
    """Note in `folder` which version made it, and what else there is to know."""
    (folder / DESCRIPTION).write_text(json.dumps({"format": POLICY_FORMAT, **facts}) + "\n")


def read_description(folder: Path) -> dict[str, Any]:
    """Raises FlowtailorError where there is no policy or adapter of this format."""
    try:
        content = json.loads((folder / DESCRIPTION).read_text())
        if content["format"] != POLICY_FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {POLICY_FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        maker = "grpo" if folder.name == "grpo" else "sft"
        raise FlowtailorError(f"{folder}: no policy to load ({reason}); run `flowtailor {maker}`") from None
    return content
