"""flowtailor: learns to design the ComfyUI workflow for the prompt.

The code lives in folders at the repository root (`workflows/`, `datasets/`, ...), imported as
`flowtailor.workflows` and so on. A wheel carries them inside this package; in a checkout or a
Ray working directory they lie beside it, so the root joins this package's search path. The
folders themselves stay off the import path: a top-level `datasets` is Hugging Face's.
"""

from pathlib import Path

__version__ = "0.1.0"

_here = Path(__file__).resolve().parent
if not (_here / "workflows").is_dir():
    __path__.append(str(_here.parent))
