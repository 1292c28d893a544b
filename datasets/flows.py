"""The seed workflows that ship with flowtailor, and those of a folder of one's own.

Each is ComfyUI API JSON with slots (`{prompt}`, `{seed}`, `{filename}`); augmentation starts there.
A plain export gets its slots here.
"""

from __future__ import annotations

from pathlib import Path

from flowtailor.errors import FlowtailorError

from ..workflows.graph import Workflow, WorkflowError
from ..workflows.slots import made_ready
from ..workflows.ui import is_ui, load_json

SHIPPED = Path(__file__).parent / "flows"


def load_seed_flows(folder: str | Path | None = None) -> dict[str, Workflow]:
    """Seed workflows by name, sorted; from `folder` or those that ship.

    Raises FlowtailorError where there is no such folder, and where a file is no workflow, has no text for the
    prompt, or links that lead nowhere or in a circle.
    """
    root = Path(folder) if folder else SHIPPED
    if not root.is_dir():
        raise FlowtailorError(f"space.flows = {root}: no such folder; name one that holds workflows")
    flows: dict[str, Workflow] = {}
    for file in sorted(root.glob("*.json")):
        content = load_json(file)
        try:
            if is_ui(content):
                raise WorkflowError("is in the editor's format; use the menu's Export (API) instead")
            flow = Workflow.from_api(content)
            flow.in_order()  # its links lead somewhere
            flows[file.stem] = made_ready(flow)
        except WorkflowError as error:
            raise FlowtailorError(f"{file}: {error}") from None
    if not flows:
        raise FlowtailorError(f"{root}: holds no *.json workflow; export some from ComfyUI in API format")
    return flows
