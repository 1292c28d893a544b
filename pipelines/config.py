"""The configuration of a run: frozen models, unknown keys refused. config_file.py reads it.

Units are in the names (`_s` seconds). TRL's and Ray's own options stand under `[sft.trl]`,
`[grpo.trl]` and `[ray.init]` and are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from ..actors.comfy import EngineConfig


class Section(BaseModel):
    """A frozen part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RunConfig(Section):
    name: str = "quickstart"
    root: str = "runs"
    seed: int = 0

    @field_validator("root")
    @classmethod
    def _is_a_folder(cls, root: str) -> str:
        """A path would take the URL for names of local folders, and the run would stay on this machine."""
        if "://" in root:
            raise ValueError(
                f"{root!r} is a URL, a run needs a folder; mount it, and name the folder where all machines"
                " see it, such as /mnt/shared/runs"
            )
        return root


class SpaceConfig(Section):
    """Which workflows may be designed: a TOML file, or the space that ships with the studio."""

    file: str | None = None
    flows: str | None = None  # folder of seed workflows; None: those that ship with flowtailor
    max_tokens: int = Field(default=64, gt=0, le=256)  # as many words as the reward reads


class PromptsConfig(Section):
    file: str | None = None  # CSV with text,category; None: the studio's captions
    train: NonNegativeInt = 60
    validation: NonNegativeInt = 12
    test: NonNegativeInt = 16

    def counts(self) -> dict[str, int]:
        """How many prompts of each split are drawn for the collection."""
        return self.model_dump(exclude={"file"})


class CollectConfig(Section):
    flows: PositiveInt = 64  # distinct workflows, seeds included
    flows_per_prompt: PositiveInt = 12
    seeds: PositiveInt = 1  # pictures per prompt and workflow
    repeated: float = Field(default=0.0, ge=0, le=1)  # share of prompts with one seed more, to know the noise
    head_start: str | None = None  # Parquet file of rows to begin with, or one that ships
    rows_per_block: PositiveInt = 8  # what a crash may lose of the rows (pictures stay)


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ScorersConfig(Section):
    """Scorer name -> weight in the score that rewards and evaluations use."""

    weights: dict[str, Weight] = Field(
        default_factory=lambda: {"alignment": 0.5, "fidelity": 0.3, "sharpness": 0.2}
    )

    @field_validator("weights")
    @classmethod
    def _can_reward(cls, weights: dict[str, float]) -> dict[str, float]:
        """Refused here already, before a run starts; `load_scorer` refuses classes by their path too."""
        if not sum(weights.values()) > 0:
            raise ValueError("the weights must have a positive sum; name a scorer, as in {alignment = 1.0}")
        if held_out := sorted(name for name in weights if name.startswith("held_out_")):
            raise ValueError(f"{held_out[0]} is held out for evaluation; nothing may be rewarded by it")
        return weights


class RewardConfig(Section):
    backbone: str = "minilm-l6"
    members: PositiveInt = 4
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 3e-4
    workers: PositiveInt = 2
    kappa: float = 0.5  # score that a deviation of doubt costs: about what pictures stay below it by
    lambda_seconds: float = 0.005  # score that a second must bring
    novelty: NonNegativeFloat = 0.0  # score that a policy gives up to design what was not rendered before


def _shared_prompts(options: dict[str, Any]) -> dict[str, Any]:
    if options.get("gradient_checkpointing"):
        raise ValueError(
            "gradient_checkpointing keeps no cache, by which designs share prompts; leave it out"
        )
    return options


TrlOptions = Annotated[dict[str, Any], AfterValidator(_shared_prompts)]


class SftConfig(Section):
    base: str = "smollm2-135m-instruct"
    steps: PositiveInt = 70
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 1e-3
    teacher: Literal["ensemble", "rows"] = "ensemble"  # whom to imitate; rows: as without an ensemble
    teacher_temperature: PositiveFloat = 0.01  # of the ensemble's choice, in reward
    variants: NonNegativeInt = 6000  # edits of good workflows that the ensemble may choose unrendered
    keep: float = Field(default=0.25, gt=0, le=1)  # teacher "rows": the best share of each prompt's rows
    designs_per_prompt: PositiveInt = 2  # that the teacher shows each time it is asked
    budgeted: float = Field(default=0.5, ge=0, le=1)  # share of its answers that keep a time budget
    score_conditioned_steps: PositiveInt = 40
    trl: TrlOptions = Field(default_factory=dict)


class GrpoConfig(Section):
    steps: PositiveInt = 60
    prompts_per_step: PositiveInt = 4
    num_generations: int = Field(default=8, ge=2)
    learning_rate: PositiveFloat = 1.5e-4
    temperature: PositiveFloat = 1.0
    beta: float = 0.02  # weight of the KL to the SFT policy, in reward per nat
    lora_rank: PositiveInt = 16
    mask_loss: bool = True  # false masks sampling alone: a comparison, it learns little
    budgeted: float = Field(default=0.5, ge=0, le=1)  # share of the groups whose prompt has a time budget
    over_budget_penalty: float = 0.3  # reward lost where the budget is broken by a quarter
    audit_every: NonNegativeInt = 20  # steps between audits by really rendering; 0: none
    audit_designs: int = Field(default=16, ge=2)  # of one audit, each for a prompt of its own
    audit_max_gap: float = 0.15  # predicted less rendered score that stops the run
    trl: TrlOptions = Field(default_factory=dict)


class RefineConfig(Section):
    """Rounds of rendering what the policy designs, fitting again, and more GRPO."""

    rounds: NonNegativeInt = 0  # that `flowtailor run` makes; `flowtailor refine` makes one or more
    renders: PositiveInt = 120  # new pictures of training prompts in a round, to learn from
    draws: PositiveInt = 8  # designs per training prompt to pick them from
    validation_designs: int = Field(default=4, ge=3)  # per validation prompt, rendered to judge by
    grpo_steps: PositiveInt = 20
    sft_steps: PositiveInt = 40  # before them, where a round takes in new models


MOST_GUIDANCE = 10
MOST_TEMPERATURE = 5
Guidance = Annotated[float, Field(ge=0, le=MOST_GUIDANCE)]
Temperature = Annotated[float, Field(ge=0, le=MOST_TEMPERATURE)]


class DesignConfig(Section):
    guidance: Guidance = 1.5
    choose_guidance: bool = True  # an evaluation finds the best of its sweep, which then takes its place
    temperature: Temperature = 0.7
    best_of: PositiveInt = 4


Share = Annotated[float, Field(gt=0, lt=1)]


class EvaluateConfig(Section):
    prompts: PositiveInt = 12
    seeds: PositiveInt = 1
    guidance_sweep: tuple[Guidance, ...] = (0.0, 1.0, 1.5, 2.0, 3.0)
    sweep_designs: PositiveInt = 4  # designs per validation prompt at each guidance
    render_sweep: bool = True  # render the first of them
    budget_quantiles: tuple[Share, ...] = ()  # of the training rows' seconds: budgets to design within


class ReplicasConfig(Section):
    """How the endpoint's models are spread and asked; a Serve config file says it too (`ServeArgs`)."""

    replicas: PositiveInt = 1
    max_batch_size: PositiveInt = 8
    batch_wait_s: NonNegativeFloat = 0.02
    max_queued_requests: PositiveInt = 64


class ServeConfig(ReplicasConfig):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)


class RayConfig(Section):
    address: str | None = None  # None: a local Ray; "auto": the cluster this machine belongs to
    init: dict[str, Any] = Field(default_factory=dict)


class Config(Section):
    """Everything a run needs to know."""

    run: RunConfig = RunConfig()
    engine: EngineConfig = EngineConfig()
    space: SpaceConfig = SpaceConfig()
    prompts: PromptsConfig = PromptsConfig()
    collect: CollectConfig = CollectConfig()
    scorers: ScorersConfig = ScorersConfig()
    reward: RewardConfig = RewardConfig()
    sft: SftConfig = SftConfig()
    grpo: GrpoConfig = GrpoConfig()
    refine: RefineConfig = RefineConfig()
    design: DesignConfig = DesignConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    ray: RayConfig = RayConfig()

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """A copy in which keys of sections have other values, as in `changed(sft={"steps": 7})`.

        The values are not checked.
        """
        others = {name: getattr(self, name).model_copy(update=values) for name, values in sections.items()}
        return self.model_copy(update=others)
