"""What clients send to and get from the design endpoint; the rules of a request live here.

Strict on purpose: a string where a number belongs is refused, not guessed at. Nothing in a request
names a file, a node or an engine. Knows nothing of Ray or torch, so that clients and tests can
import it cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..pipelines.config import Guidance, Temperature

MAX_DESIGNS = 16
MAX_PROMPT_CHARS = 2000
EMBEDDING = "embedding:"  # ComfyUI's tokenizer looks for a file of the name that follows


def _readable(prompt: str) -> str:
    prompt = prompt.strip()
    if not prompt:
        raise ValueError("must hold at least one word")
    if EMBEDDING in prompt:
        raise ValueError(f"must not hold {EMBEDDING!r}: ComfyUI would read the embedding's file")
    return prompt


class Message(BaseModel):
    """Frozen, strict about types, refuses unknown keys and NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class DesignRequest(Message):
    prompt: Annotated[str, AfterValidator(_readable)] = Field(
        max_length=MAX_PROMPT_CHARS, examples=["a red apple"]
    )
    n: int = Field(
        default=1, ge=1, le=MAX_DESIGNS, description="different designs; fewer come where there are no more"
    )
    guidance: Guidance | None = Field(
        default=None,
        description="0: the SFT policy, 1: the GRPO policy, above 1: beyond it; null: as the run is set up",
    )
    budget_s: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="wished render time in seconds; designs that are foreseen to keep it come first",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the design and of the picture")
    temperature: Temperature | None = Field(
        default=None, description="0: always the likeliest; null: as the run is set up"
    )
    render: bool = Field(
        default=False, description="draw the designs too: the answer is a stream of server-sent events"
    )


class Estimate(Message):
    """What the reward ensemble expects: mean and error bar: two thirds of what is measured lie within."""

    mean: float
    std: float


class Forecast(Message):
    """Of a picture that was not rendered, on the engine of the training run."""

    score: Estimate = Field(description="the scorers' weighted mean, in 0..1")
    scores: dict[str, Estimate] = Field(description="by scorer, in 0..1")
    seconds: Estimate = Field(description="render time")
    reward: float = Field(description="score - kappa * doubt - lambda * seconds, as in training")
    keeps_budget: bool | None = Field(description="so 19 of 20 renders like it would; null without a budget")


class Component(Message):
    """What one part of a design adds: foreseen, with the part minus without it."""

    component: str = Field(examples=["upscaler realesr-animevideov3-x2", "steps=12"])
    change: str = Field(
        description="what it is compared to: left out, or the value that is the space's default",
        examples=["left out", "steps=8"],
    )
    score: Estimate = Field(description="std: 68% of differences between two pictures lie within")
    seconds: Estimate


class DesignedWorkflow(Message):
    workflow: dict[str, Any] = Field(description="API JSON, ready for an engine's /prompt")
    summary: str = Field(examples=["kitchen · 128×128 · euler/simple, 12 steps, cfg 2"])
    tokens: list[str]
    logprob: float = Field(description="of the tokens under the policy that drew them")
    forecast: Forecast
    components: list[Component] = Field(description="what moves the score most first")


class DesignResponse(Message):
    prompt: str
    designs: list[DesignedWorkflow] = Field(
        description="best first: highest predicted reward, of those that are foreseen to keep the budget"
    )


class Problem(BaseModel):
    """One broken rule; `field` is the dotted place in the request."""

    field: str
    rule: str
    value: str


class Refusal(BaseModel):
    detail: list[Problem]


def refusal(errors: Sequence[Any]) -> dict[str, Any]:
    """Pydantic's errors as the body of a 422.

    Values are shown as ASCII `repr`, cut short: NaN and lone surrogates, which JSON cannot
    carry, would otherwise turn the refusal itself into a server error.
    """
    problems = [
        Problem(
            # A number in `loc` is an offset in broken JSON: requests hold no lists.
            field=_ascii(".".join(p for p in error["loc"] if isinstance(p, str) and p != "body") or "body"),
            rule=_ascii(_rule(error)),
            value=ascii(error.get("input"))[:200],
        )
        for error in errors
    ]
    return Refusal(detail=problems).model_dump()


def _rule(error: Any) -> str:
    if isinstance(error.get("input"), bytes):  # FastAPI hands on unread what is not announced as JSON
        return "send the header Content-Type: application/json"
    if error["type"] == "extra_forbidden":
        return f"unknown field; there are {', '.join(DesignRequest.model_fields)}"
    return error["msg"].removeprefix("Value error, ")


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
