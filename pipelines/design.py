"""`flowtailor design "PROMPT"`: workflows for one prompt from a trained run.

Prints each design with what the reward ensemble expects of it and what its parts add, and writes it
as a file that ComfyUI runs as it is: API format, prompt and seed filled in. With `render` the run's
engine draws them.
Predictions are of the scorers that the run was trained with, on the engine that it was trained on.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from flowtailor.errors import FlowtailorError

from ..actors.comfy import engine
from ..actors.renderer import drawn_anew
from ..datasets.rows import text_hash
from ..workflows.codec import decode
from ..workflows.graph import Workflow
from ..workflows.space import Space
from ..workflows.summary import summary
from . import why
from .catalog import read_world
from .config import MOST_GUIDANCE, MOST_TEMPERATURE, Config
from .judging import Wish, draw
from .stage import Run, write_json
from .trained import load_designer, load_ensemble, need, open_run
from .why import Contribution, contributions

if TYPE_CHECKING:
    from ..models.designing import Designer
    from ..models.reward import RewardEnsemble

MOST_DESIGNS = 64


@dataclass(frozen=True)
class Request(Wish):
    """A person's wish; FlowtailorError where a value breaks its rule."""

    def __post_init__(self) -> None:
        rules = [
            (bool(self.prompt.strip()), f"prompt {self.prompt!r}: must hold a word; say what to draw"),
            (1 <= self.n <= MOST_DESIGNS, f"-n {self.n}: must be 1 to {MOST_DESIGNS}"),
            (
                0 <= self.guidance <= MOST_GUIDANCE,
                f"--guidance {self.guidance:g}: must be 0 to {MOST_GUIDANCE}",
            ),
            (
                0 <= self.temperature <= MOST_TEMPERATURE,
                f"--temperature {self.temperature:g}: must be 0 to {MOST_TEMPERATURE}",
            ),
            (self.budget_s is None or self.budget_s > 0, f"--budget-s {self.budget_s}: must be above 0"),
            (0 <= self.seed < 2**63, f"--seed {self.seed}: must be 0 or more, and below 2**63"),
        ]
        for holds, message in rules:
            if not holds:
                raise FlowtailorError(message)


@dataclass(frozen=True)
class Designed:
    """One design: its tokens, what is expected of it, and where its files lie.

    score, reward: in the scorers' unit (0 to 1); seconds: of the render; keeps_budget: see `Judged`;
    components: what each part adds, most first; file, picture: paths.
    """

    tokens: tuple[str, ...]
    summary: str
    score: float
    score_std: float
    reward: float
    seconds: float
    seconds_std: float
    logprob: float
    keeps_budget: bool | None = None
    components: tuple[Contribution, ...] = ()
    file: str = ""
    picture: str | None = None
    measured_score: float | None = None
    measured_seconds: float | None = None
    error: str | None = None


def design(
    prompt: str,
    *,
    run_dir: str,
    n: int,
    guidance: float | None,
    temperature: float | None,
    budget_s: float | None,
    seed: int,
    render: bool,
    out: str | None = None,
    as_json: bool = False,
) -> None:
    """The command. None for guidance and temperature means those of the run's configuration."""
    run = open_run(run_dir)
    request = Request.of(
        " ".join(prompt.split()),
        run.config.design,
        n=n,
        guidance=guidance,
        temperature=temperature,
        budget_s=budget_s,
        seed=seed,
    )
    need(run.dir, "catalog.json", "reward/ensemble.json", "policy/sft", "policy/grpo")
    _, space = read_world(run)
    designs = ranked(request, run.config, load_designer(run, space), load_ensemble(run), space)
    folder = Path(out) if out else run.path(f"designs/{_slug(request)}")
    flows = [decode(d.tokens, space) for d in designs]
    designs = write_flows(designs, flows, request, folder)
    if render:
        designs = write_pictures(designs, flows, request, run, folder)
    if as_json:
        print(json.dumps({"request": asdict(request), "designs": [asdict(d) for d in designs]}, indent=2))
    else:
        print(told(request, designs, folder))


def ranked(
    request: Wish, config: Config, designer: Designer, ensemble: RewardEnsemble, space: Space
) -> list[Designed]:
    """Draw different designs, best first (see `judging.best_first`), each with what its parts add."""
    [drawn] = draw([request], designer, ensemble, config)
    parts = contributions(
        [(request.prompt, d.tokens) for d in drawn], ensemble, space, config.scorers.weights
    )
    return [
        Designed(
            tokens=one.tokens,
            summary=summary(decode(one.tokens, space)),
            score=one.score,
            score_std=one.score_std,
            reward=one.reward,
            seconds=one.seconds,
            seconds_std=one.seconds_std,
            logprob=one.logprob,
            keeps_budget=one.keeps_budget,
            components=tuple(components),
        )
        for one, components in zip(drawn, parts, strict=True)
    ]


def write_flows(
    designs: Sequence[Designed], flows: Sequence[Workflow], request: Request, folder: Path
) -> list[Designed]:
    """Write `1.json`, `2.json`, ... in ComfyUI's API format; returns the designs with their files."""
    written = []
    for number, (designed, flow) in enumerate(zip(designs, flows, strict=True), start=1):
        file = folder / f"{number}.json"
        write_json(file, flow.bind(request.prompt, request.seed).to_api())
        written.append(replace(designed, file=str(file)))
    return written


def write_pictures(
    designs: Sequence[Designed], flows: Sequence[Workflow], request: Request, run: Run, folder: Path
) -> list[Designed]:
    """Render each design as `1.png`, `2.png`, ... and score it; one that fails keeps its error."""
    from ..models.scorers import load_scorer

    weights = run.config.scorers.weights
    scorers = {name: load_scorer(name) for name in weights}
    done = []
    with engine(run.config.engine) as client:
        for number, (designed, flow) in enumerate(zip(designs, flows, strict=True), start=1):
            bound = drawn_anew(flow).bind(request.prompt, request.seed)
            try:
                rendered = client.render(bound.to_api(), run.config.engine.render_timeout_s)
            except FlowtailorError as error:
                done.append(replace(designed, error=str(error)))
                continue
            picture = folder / f"{number}.png"
            picture.write_bytes(rendered.png)
            image = Image.open(io.BytesIO(rendered.png)).convert("RGB")
            scores = {name: scorer.score([image], [request.prompt])[0] for name, scorer in scorers.items()}
            measured = sum(weights[name] * score for name, score in scores.items()) / sum(weights.values())
            done.append(
                replace(
                    designed,
                    picture=str(picture),
                    measured_score=float(measured),
                    measured_seconds=rendered.seconds,
                )
            )
    return done


def told(request: Request, designs: Sequence[Designed], folder: Path) -> str:
    """The designs for a person, best first."""
    budget = "" if request.budget_s is None else f", within {request.budget_s:g} s"
    lines = [f"{request.prompt}  (guidance {request.guidance:g}, seed {request.seed}{budget})"]
    if all(d.keeps_budget is False for d in designs):
        lines += [
            "",
            f"No design is foreseen to keep {request.budget_s:g} s for sure; the quickest come first.",
        ]
    for number, d in enumerate(designs, start=1):
        expected = f"score {d.score:.2f} ± {d.score_std:.2f}, {d.seconds:.2f} ± {d.seconds_std:.2f} s"
        lines += ["", f"{number}. expected {expected}", f"   {d.summary}", f"   {' '.join(d.tokens)}"]
        lines += [f"   {line}" for line in why.told(d.components)]
        if d.error is not None:
            lines.append(f"   not rendered: {d.error}")
        elif d.picture is not None:
            lines.append(f"   rendered score {d.measured_score:.2f}, {d.measured_seconds:.2f} s: {d.picture}")
    files = f"{len(designs)} workflow{'s' if len(designs) > 1 else ''}, ready to queue in ComfyUI"
    if len(designs) < request.n:
        files = f"No more than {len(designs)} different ones found; a higher --temperature may. {files}"
    return "\n".join([*lines, "", f"{files}: {folder}/"])


def _slug(request: Request) -> str:
    """A folder name from the prompt, readable and harmless; another request gets another folder."""
    words = re.sub(r"[^a-z0-9]+", "-", request.prompt.lower()).strip("-")[:48].strip("-")
    return f"{words or 'design'}-{text_hash(repr(request))[:6]}"
