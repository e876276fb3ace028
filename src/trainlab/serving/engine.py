"""Loads the bundles that are chosen, and answers by them; a load replaces all of them at once, or nothing."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlab import paths
from trainlab.cleaning import text_key
from trainlab.errors import UserError
from trainlab.nearest import Index
from trainlab.serving import bundle, served
from trainlab.serving.bundle import BundleError
from trainlab.serving.pictures import WORDS, Pictures
from trainlab.serving.questions import (
    LONGEST_TEXT,
    CaptionAnswer,
    Item,
    NearestAnswer,
    NearestQuestion,
    SentimentAnswer,
    SentimentQuestion,
)
from trainlab.serving.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Image

    from trainlab.serving.bundle import Bundle

ITEM_FILE = "items.json"
COLUMNS = ("title", "category", "subcategory", "url")  # of the items, all texts
LINK = re.compile(r"https?://[^\s\"'<>\\]+")
THRESHOLD = 0.5  # of the probability, from which on a review is positive


class NotServed(UserError):  # noqa: N818 - it is an answer
    """Something that none of the loaded bundles can do."""

    status = 404  # of HTTP


class Nearest:
    """Finds the items nearest to a title, in a bundle of news."""

    def __init__(self, found: Bundle) -> None:
        self._name, self._texts = found.folder.name, Texts(found)
        self.reads_abstracts = self._texts.texts == 2
        vectors, listed = found.array(), found.json(ITEM_FILE)
        lists: list[Any] = [listed.get(each) for each in COLUMNS] if isinstance(listed, dict) else []
        if not lists or not all(_texts(each, len(vectors)) for each in lists) or not len(vectors):
            raise BundleError(f"{found.folder / ITEM_FILE}: expected {', '.join(COLUMNS)} of each item.")
        if not np.isfinite(vectors).all():
            raise BundleError(f"{found.folder / bundle.ITEMS}: some of its numbers are none.")
        self._items, self._index = dict(zip(COLUMNS, lists, strict=True)), Index(vectors)
        self.count, self._width = vectors.shape

    def answer(self, question: NearestQuestion) -> NearestAnswer:
        """Return the k nearest items, never the one of the same title; fewer where there are no more."""
        vector = self._texts.run([self._texts.item(question.title, question.abstract.strip())])
        _check(vector, (1, self._width))
        distances, rows = self._index.nearest(vector, question.k + 1)  # one may be the title itself
        asked, items = text_key(question.title), list[Item]()
        for distance, row in zip(distances[0].tolist(), rows[0].tolist(), strict=True):
            known = {name: self._items[name][row] for name in COLUMNS}
            if text_key(known["title"]) == asked or len(items) == question.k:
                continue
            if not LINK.fullmatch(known["url"]):  # whoever made the bundle may have written anything there
                known["url"] = ""
            items.append(Item(rank=len(items) + 1, distance=distance, **known))
        return NearestAnswer(bundle=self._name, items=items)

    def warm(self) -> None:
        """Answer the shortest question and the longest."""
        for text in ("a", _longest()):
            self.answer(NearestQuestion.model_construct(title=text, abstract=text, k=1))


class Sentiment:
    """Says whether a review is positive."""

    def __init__(self, found: Bundle) -> None:
        self._name, self._texts = found.folder.name, Texts(found)

    def answer(self, question: SentimentQuestion) -> SentimentAnswer:
        """Return what a review is."""
        scores = self._texts.run([self._texts.item(question.text)])
        _check(scores, (1, 2))
        negative, positive = scores[0].astype(np.float64)
        share = float(1 / (1 + np.exp(np.clip(negative - positive, -700, 700))))  # exp(710) is no float
        return SentimentAnswer(
            bundle=self._name, label="positive" if share >= THRESHOLD else "negative", positive=share
        )

    def warm(self) -> None:
        """Answer the shortest question and the longest."""
        for text in ("a", _longest()):
            self.answer(SentimentQuestion.model_construct(text=text))


class Caption:
    """Writes a picture's caption."""

    def __init__(self, found: Bundle) -> None:
        self._name, self._pictures = found.folder.name, Pictures(found)
        if not _texts(words := self._pictures.words, len(words)):
            raise BundleError(f"{found.folder / WORDS}: a word that is no text. Export the run again.")

    def answer(self, picture: Image) -> CaptionAnswer:
        """Return a picture's caption."""
        said = self._pictures.caption(self._pictures.pixels(picture)[None])
        return CaptionAnswer(bundle=self._name, caption=said[0])

    def warm(self) -> None:
        """Caption a grey picture."""
        from PIL import Image

        self.answer(Image.new("RGB", (64, 64), "grey"))


RUNNERS: Mapping[str, Callable[[Bundle], Any]] = {
    "nearest": Nearest,
    "sentiment": Sentiment,
    "caption": Caption,
}


@dataclass(frozen=True)
class Loaded:
    """What one load has made: of each kind what answers, its bundle's name and digest, its card."""

    runners: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def runner(self, kind: str) -> Any:
        """Return what answers; raise NotServed where no bundle of the kind is loaded."""
        if kind not in self.runners:
            there = ", ".join(self.runners) or "nothing yet"
            raise NotServed(f"No bundle of the kind {kind} is served here. Served: {there}.")
        return self.runners[kind]


class Engine:
    """What is served now, and how the loads went.

    Attributes:
        now: What answers. Whoever has begun with it ends with it, whatever is loaded meanwhile.
        refused: Why the last load was refused; empty where it was not.
        loads: How many loads have ended, refused ones too.
    """

    def __init__(self) -> None:
        self.now, self.refused, self.loads = Loaded(), "", 0
        self._lock = threading.Lock()

    def load(self) -> None:
        """Verify, load and warm the chosen bundles, then swap one reference.

        Raises UserError, and leaves what answers as it is, where one of them is refused.
        """
        with self._lock:
            try:
                self.now = load(served.names())
                self.refused = ""
            except UserError as error:
                self.refused = str(error)
                raise
            finally:
                self.loads += 1


def load(names: list[str]) -> Loaded:
    """Return what answers by the bundles of these names in models/.

    Raises:
        BundleError: One is missing, damaged or not trusted, there is no page for its kind, another is of the
            same kind, or its network can't answer.
    """
    found = Loaded({}, {}, {}, {})
    for name in names:
        each = read(name)
        if each.kind in found.runners:
            raise BundleError(
                f"{found.names[each.kind]} and {name} are both of the kind {each.kind}, and one page has one "
                "of a kind. Choose one of them: trainlab serve NAME --choose"
            )
        for table, value in (
            (found.runners, runner(each)),
            (found.names, name),
            (found.digests, each.digest),
            (found.cards, card(each)),
        ):
            table[each.kind] = value  # type: ignore[index]
    return found


def read(name: str) -> Bundle:
    """Return the bundle of this name in models/; raise BundleError for one that can't be served."""
    folder = paths.models() / name
    try:
        found = bundle.read(folder)
    except OSError as error:  # somebody deletes it at this moment
        raise BundleError(f"{folder}: {error.strerror}. Refused. Export the run again.") from None
    if found.kind not in RUNNERS:
        raise BundleError(
            f"{folder} is of the kind {found.kind}, for which there is no page. Served are "
            f"{', '.join(RUNNERS)}."
        )
    return found


def runner(found: Bundle) -> Any:
    """Return what answers by a bundle, warm; raise BundleError where its network can't answer."""
    made = RUNNERS[found.kind](found)
    try:
        made.warm()
    except Exception as error:  # whatever onnxruntime says of a network that wants something else
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{found.folder}: its network can't answer: {reason}. Export the run again."
        ) from None
    return made


def card(found: Bundle) -> Mapping[str, Any]:
    """Return a bundle's card; raise BundleError for one that no answer could carry."""
    held = found.json(bundle.CARD)
    try:
        json.dumps(held, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise BundleError(f"{found.folder / bundle.CARD}: {error}. Export the run again.") from None
    if not isinstance(held, dict):
        raise BundleError(f"{found.folder / bundle.CARD}: expected what is known of the run.")
    return held


def _texts(values: Any, count: int) -> bool:
    """Say whether these are so many texts, each of which UTF-8 can hold."""
    if not isinstance(values, list) or len(values) != count:
        return False
    try:
        "".join(values).encode()
    except (TypeError, UnicodeEncodeError):  # no texts, or half of a surrogate pair, which JSON may hold
        return False
    return True


def _check(found: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a network's answer is numbers of this shape."""
    if np.shape(found) != shape or not np.isfinite(found).all():
        raise ValueError(f"it gives {np.shape(found)} numbers, expected {shape}, all of them finite")


def _longest() -> str:
    return "a " * (LONGEST_TEXT // 2)
