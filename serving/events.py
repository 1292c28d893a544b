"""What the stream of a request with `render` is made of.

Its first event is `designs`, the answer as it is without `render`. Then each design ends in one
`picture` or one `error`, and `done` comes last; an `error` without a design ends the stream before
that. A stream that ends with neither was cut off on its way.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from .api import Message

_MESSAGE_CHARACTERS = 500


class Event(Message):
    """`name` is the event's type in the stream, the fields are its data."""

    name: ClassVar[str]

    def encoded(self) -> str:
        return encoded(self.name, self)


class Ready(Event):
    """The engine answers and it is this request's turn. Not sent: with it the stream begins."""

    name = "ready"


class Progress(Event):
    """How far the node is that draws; a design may have several, one after the other."""

    name = "progress"
    design: int = Field(description="place in the answer's `designs`, from 0")
    step: int
    steps: int


class Picture(Event):
    name = "picture"
    design: int
    png: str = Field(description="base64")
    width: int
    height: int
    seconds: float = Field(description="that the engine spent")


class Failure(Event):
    """A design that was not drawn; without a design, the end of all that were still to be drawn."""

    name = "error"
    design: int | None
    type: str = Field(examples=["ComfyExecutionError", "EngineAway"])
    message: str

    @classmethod
    def of(cls, error: Exception, design: int | None = None) -> Failure:
        message = " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
        return cls(design=design, type=type(error).__name__, message=message)


class Done(Event):
    """The end: every design has become a picture or an error."""

    name = "done"
    pictures: int
    errors: int


def in_openapi() -> dict[str, Any]:
    """The stream as OpenAPI describes one: what each event is called, and the JSON of its data."""
    data: dict[str, Any] = {"designs": {"$ref": "#/components/schemas/DesignResponse"}}
    data |= {event.name: event.model_json_schema() for event in (Progress, Picture, Failure, Done)}
    example = (
        Progress(design=0, step=3, steps=12),
        Picture(design=0, png="iVBORw0KGgo...", width=128, height=128, seconds=0.74),
        Failure(design=1, type="ComfyTimeout", message="no picture within 60 s"),
        Done(pictures=1, errors=1),
    )
    return {
        "schema": {"type": "string"},
        "itemSchema": {"oneOf": [_event_schema(name, schema) for name, schema in data.items()]},
        "example": "".join(event.encoded() for event in example),
    }


def _event_schema(name: str, data: dict[str, Any]) -> dict[str, Any]:
    json = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    properties = {"event": {"const": name}, "data": json}
    return {"type": "object", "title": name, "properties": properties, "required": ["event", "data"]}


def encoded(name: str, data: Message) -> str:
    """One server-sent event; JSON without line breaks fits on its one line."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"
