"""A workflow as a Python program for ComfyScript, for people who read code better than JSON.

The printing is done by comfy-script's own transpiler, in a subprocess: importing it patches asyncio for the
whole process. It needs the engine's `/object_info` and no engine. Node ids and titles are lost, arguments
are positional. The text is for reading; nothing here runs it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from flowtailor.errors import FlowtailorError

TIMEOUT_S = 60.0

_PROGRAM = """
import contextlib, json, sys
job = json.load(sys.stdin)
with contextlib.redirect_stdout(sys.stderr):  # the transpiler chats on stdout
    import comfy_script.client
    comfy_script.client.get_nodes_info = lambda: job["object_info"]
    from comfy_script.transpile import WorkflowToScriptTranspiler
    script = WorkflowToScriptTranspiler(json.dumps(job["workflow"])).to_script()
sys.stdout.write(script)
"""


def comfy_script(workflow_api: Mapping[str, Any], object_info: Mapping[str, Any]) -> str:
    """ComfyScript's text for a workflow. Raises FlowtailorError where the transpiler fails.

    `object_info` is the engine's answer that the workflow was made for (`Catalog.to_json`).
    """
    unknown = sorted({str(n["class_type"]) for n in workflow_api.values()} - set(object_info))
    if unknown:
        raise FlowtailorError(f"script: no node class {unknown[0]} in the catalog; use its engine's catalog")
    job = {"workflow": dict(workflow_api), "object_info": _without_outputs_of_sinks(object_info)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FlowtailorError(f"script: comfy-script took over {TIMEOUT_S:.0f} s; try again later") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FlowtailorError(f"script: comfy-script failed ({reason}); see `flowtailor workflow check`")
    if not done.stdout.strip():
        raise FlowtailorError("script: comfy-script printed nothing; the workflow needs an output node")
    return done.stdout


def _without_outputs_of_sinks(object_info: Mapping[str, Any]) -> dict[str, Any]:
    """Newer engines declare outputs for output nodes, which makes the transpiler skip these as unused."""
    blank = {"output": [], "output_name": [], "output_is_list": []}
    return {n: {**info, **blank} if info.get("output_node") else info for n, info in object_info.items()}
