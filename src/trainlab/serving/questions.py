"""What a server is asked, and what it answers: the same for programs and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST_TITLE, LONGEST_TEXT = 1_000, 10_000  # characters; networks read some hundred words
MOST, USUAL = 100, 10  # items in an answer
LONGEST_NAME = 40  # characters of a field's name that are repeated: whoever asks may have made it up

Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TITLE)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TEXT)]


class NearestQuestion(BaseModel):
    """A piece of news, and how many are wanted that are near to it."""

    model_config = ConfigDict(extra="forbid")

    title: Title
    abstract: Annotated[str, Field(max_length=LONGEST_TEXT)] = ""
    k: Annotated[int, Field(ge=1, le=MOST)] = USUAL


class SentimentQuestion(BaseModel):
    """A review."""

    model_config = ConfigDict(extra="forbid")

    text: Text


class Item(BaseModel):
    """One of the nearest items: `distance` is Euclidean, between the vectors of the network."""

    rank: int
    title: str
    category: str
    subcategory: str
    url: str
    distance: float


class NearestAnswer(BaseModel):
    """The nearest items, nearest first, and the bundle that answered."""

    bundle: str
    items: list[Item]


class SentimentAnswer(BaseModel):
    """What a review is, how probable it is that it is positive, and the bundle that answered."""

    bundle: str
    label: Literal["positive", "negative"]
    positive: float


class CaptionAnswer(BaseModel):
    """A picture's caption, and the bundle that answered."""

    bundle: str
    caption: str


def clean(told: str) -> str:
    """Return a form's text as UTF-8 can hold it: the form's charset may leave half of a surrogate pair."""
    return told.encode("utf-8", "replace").decode()


def sentence(faults: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong with a question, by pydantic's list, without a word of the question itself."""
    places = [
        ".".join(str(each)[:LONGEST_NAME] for each in fault["loc"] if each != "body") for fault in faults[:3]
    ]
    return " ".join(
        f"{place or 'The body'}: {fault['msg']}." for place, fault in zip(places, faults, strict=False)
    )
