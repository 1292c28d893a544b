"""Runs ComfyUI's main.py as it is, with two things put right around it: `launch.py MAIN [ARGUMENTS]`.

It ends the engine when the process that started it is gone: that one holds the other end of stdin. Unlike
a parent-death signal this works on every system, and when the starting thread ends before the engine.

It lets torchvision's import pass beside a CPU build of torch. The registry's torchvision is built for CUDA;
without the CUDA libraries its operators stay undefined and the import fails, although the engine needs none
of them. Only then are the two operators declared that the import looks for.

Uses the standard library only, since it may run under another interpreter than ours.
"""

import os
import runpy
import shutil
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path


class DeclareOperators(MetaPathFinder):
    """Acts just before torchvision registers its operators' shapes; finds no module itself."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision._meta_registrations" and not _operators_loaded():
            import torch

            # Kept on the class: the operators live as long as the library object.
            library = DeclareOperators.library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _operators_loaded() -> bool:
    return sys.modules["torchvision.extension"]._has_ops()


def end_with_parent() -> None:
    """Wait for the end of stdin, then remove what the engine wrote and stop at once."""
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter shuts down
        pass
    if run_dir := os.environ.get("FLOWTAILOR_RUN_DIR"):
        shutil.rmtree(run_dir, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main = Path(sys.argv[1]).resolve()
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.meta_path.insert(0, DeclareOperators())
    sys.argv = [str(main), *sys.argv[2:]]
    sys.path[0] = str(main.parent)
    runpy.run_path(str(main), run_name="__main__")
