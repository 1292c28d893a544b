"""`flowtailor workflow check|encode|decode|show|script FILE`: a workflow file in its other forms.

Needs no engine: catalog and space come from files, from a run, or from what ships with flowtailor.
"""

from __future__ import annotations

import json
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from flowtailor.errors import FlowtailorError

from ..workflows.catalog import Catalog
from ..workflows.codec import decode, encode
from ..workflows.graph import PROMPT, SEED, Link, Node, Workflow, WorkflowError
from ..workflows.script import comfy_script
from ..workflows.slots import templated
from ..workflows.space import STUDIO_SPACE, Space
from ..workflows.ui import is_ui, load_json, load_workflow, ui_to_api
from ..workflows.validate import problems

# What the embedded engine answers to /object_info, so that files can be read before it is installed.
STUDIO_CATALOG = Path(__file__).parent.parent / "studio" / "catalog.json.gz"


def workflow_command(
    action: str,
    file: str,
    *,
    run_dir: str,
    catalog: str | None = None,
    space: str | None = None,
    prompt: str = "",
) -> int:
    """Do one action on a file ("-": stdin) and print its result.

    `prompt` is the text in the workflow that stands for the prompt; `encode` puts the slot there.
    Returns the exit code; 1 where `check` found problems. Raises FlowtailorError where the file
    cannot be read, or holds what the catalog or the space does not know.
    """
    path = Path("/dev/stdin") if file == "-" else Path(file)
    known = Catalog.load(catalog or _first(Path(run_dir) / "catalog.json", STUDIO_CATALOG))
    if action == "check":
        found = problems(_checkable(path, known), known)
        print("\n".join(map(str, found)) if found else f"{file}: the engine would accept it")
        return 1 if found else 0
    if action in ("encode", "decode"):
        known_space = Space.load(space or _first(Path(run_dir) / "space.toml", STUDIO_SPACE), known)
        if action == "encode":
            print(" ".join(encode(templated(load_workflow(path, known), prompt), known_space)))
        else:
            print(json.dumps(decode(_text(path).split(), known_space).to_api(), indent=2, ensure_ascii=False))
    elif action == "show":
        print("\n".join(outline(load_workflow(path, known))))
    else:
        print(comfy_script(load_workflow(path, known).bind(PROMPT, 0).to_api(), known.to_json()))
    return 0


def outline(flow: Workflow) -> list[str]:
    """One line per node with its inputs, each node after those that it reads from."""
    sources = {
        i: [link.node for _, link in n.links() if link.node in flow.nodes] for i, n in flow.nodes.items()
    }
    try:
        order = [*TopologicalSorter(sources).static_order()]
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise WorkflowError(f"nodes {circle} feed each other in a circle; cut one of the links") from None
    return [_line(node_id, flow.nodes[node_id], flow) for node_id in order]


def _line(node_id: str, node: Node, flow: Workflow) -> str:
    inputs = ", ".join(f"{name}={_shown(value, flow)}" for name, value in node.inputs.items())
    title = f"  # {node.title}" if node.title and node.title != node.class_type else ""
    return f"{node_id:>3}  {node.class_type}({inputs}){title}"


def _shown(value: Any, flow: Workflow) -> str:
    if isinstance(value, Link):
        source = flow.nodes.get(value.node)
        return f"<{value.node}.{value.slot} {source.class_type if source else 'missing'}>"
    return json.dumps(value, ensure_ascii=False)


def _checkable(path: Path, catalog: Catalog) -> Any:
    """The file's JSON as it stands, wrong shapes included; slots are filled, UI format is converted."""
    data = load_json(path)
    if is_ui(data):
        return ui_to_api(data, catalog)
    if SEED in json.dumps(data):
        with suppress(WorkflowError):
            return Workflow.from_api(data)  # `problems` judges a Workflow with its slots filled
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlowtailorError(
            f"{path}: cannot be read ({error}); name a workflow file, or - for stdin"
        ) from None


def _first(*files: Path) -> Path:
    return next((file for file in files if file.is_file()), files[-1])
