"""The seed workflows that ship with flowtailor, and those of a folder of one's own.

Each is ComfyUI API JSON with slots (`{prompt}`, `{seed}`, `{filename}`); augmentation starts there.
A plain export gets its slots here.
"""

from __future__ import annotations

import json
from pathlib import Path

from flowtailor.errors import FlowtailorError

from ..workflows.graph import Workflow, WorkflowError
from ..workflows.slots import made_ready
from ..workflows.ui import is_ui

SHIPPED = Path(__file__).parent / "flows"


def load_seed_flows(folder: str | Path | None = None) -> dict[str, Workflow]:
    """Seed workflows by name, sorted; from `folder` or those that ship.

    Raises FlowtailorError where a file is no workflow, or has no text for the prompt.
    """
    root = Path(folder) if folder else SHIPPED
    flows: dict[str, Workflow] = {}
    for file in sorted(root.glob("*.json")):
        try:
            content = json.loads(file.read_text())
            if is_ui(content):
                raise WorkflowError("is in the editor's format; use the menu's Export (API) instead")
            flows[file.stem] = made_ready(Workflow.from_api(content))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FlowtailorError(
                f"{file}: not JSON ({error}); export it from ComfyUI in API format"
            ) from None
        except WorkflowError as error:
            raise FlowtailorError(f"{file}: {error}") from None
    if not flows:
        raise FlowtailorError(f"{root}: holds no *.json workflow; export some from ComfyUI in API format")
    return flows
