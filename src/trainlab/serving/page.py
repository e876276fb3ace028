"""The page: what the loaded bundles can do, as forms, and their answers. Every text is escaped."""

from __future__ import annotations

import functools
import json
import logging
from importlib import resources
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from trainlab.serving import questions, served, uploads
from trainlab.serving.engine import NotServed
from trainlab.serving.questions import NearestQuestion, SentimentQuestion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment

    from trainlab.serving.engine import Loaded

STYLE = "style.css"
FAILED = "The network could not answer this. The server's log says why."
QUESTIONS: dict[str, type[BaseModel]] = {"nearest": NearestQuestion, "sentiment": SentimentQuestion}


@functools.cache
def text(name: str) -> str:
    """Return one of the files beside this module."""
    return resources.files("trainlab.serving").joinpath(name).read_text("utf-8")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(text),
        undefined=StrictUndefined,
    )


def shown(
    loaded: Loaded,
    asked: Mapping[str, Any] | None = None,
    answer: Any = None,
    fault: str = "",
    picture: str = "",
) -> str:
    """Return the page.

    Args:
        loaded: What answers.
        asked: What was asked, by field, and under `ask` the kind of the question.
        answer: What was answered, if it was.
        fault: Why it was not.
        picture: The address of the picture that was asked about.
    """
    kinds = [kind for kind in served.KINDS if kind in loaded.runners]
    cards = {kind: json.dumps(loaded.cards[kind], indent=2, ensure_ascii=False) for kind in kinds}
    return (
        _environment()
        .get_template("page.html")
        .render(
            kinds=kinds,
            loaded=loaded,
            cards=cards,
            asked={"ask": "", "title": "", "abstract": "", "text": "", "k": questions.USUAL, **(asked or {})},
            answer=answer,
            fault=fault,
            picture=picture,
            limits=questions,
        )
    )


def answered(loaded: Loaded, asked: Mapping[str, Any], content: bytes) -> tuple[str, int]:
    """Answer a form, and return the page and its status of HTTP.

    Args:
        loaded: What answers.
        asked: The form's fields; `ask` names the kind of the question.
        content: Of the picture that was sent.
    """
    kind, picture = asked.get("ask", ""), ""
    try:
        runner = loaded.runner(kind)
        if kind in QUESTIONS:
            fields = {name: value for name, value in asked.items() if name != "ask"}
            answer = runner.answer(QUESTIONS[kind].model_validate(fields))
        else:
            read = uploads.read(content)
            answer, picture = runner.answer(read), uploads.address(read)
    except ValidationError as error:
        return shown(loaded, asked, fault=questions.sentence(error.errors())), 422
    except (NotServed, uploads.PictureError) as error:
        return shown(loaded, asked, fault=str(error)), error.status
    except Exception:  # of a network that can't take some word
        logging.getLogger(__name__).exception("not answered")
        return shown(loaded, asked, fault=FAILED), 500
    return shown(loaded, asked, answer, picture=picture), 200


def refused(status: int, sentence: str) -> str:
    """Return a page that says why a request was refused."""
    return _environment().get_template("refused.html").render(status=status, sentence=sentence)
