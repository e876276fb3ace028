"""What must never be printed or recorded: keys, tokens and passwords, wherever a run is written.

They are known by a name that says so: of an environment variable, of a line in `.env`, of a setting, or of
what a notebook's code gives a text to. Addresses with a password, and what follows `Authorization:`, are
known by their form. Values of fewer than eight characters stay: to hide them would tear words apart.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from trainlab import paths

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"
OF_SERVICES = ("JUPYTER_TOKEN", "NOTIFY")  # variables that no run and no kernel inherits
SHORTEST = 8  # characters
_LONG = 16  # characters, of a line of a key, or of a user's name that is a token in truth
_LARGEST = 1 << 20  # bytes of a `.env` that is looked at
_FRESH = 1.0  # seconds that what is known counts where a training may ask a thousand times a second

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
_LAST = re.compile(
    r"passwords?|passwd|passphrase|pwd|secrets?|credentials?|auth|authorization|bearer"
    r"|(api|access|secret|private|auth)keys?|(api|access|auth)token"
)
_OF_KEYS = re.compile(  # what stands before 'key' in a secret's name; a sort key and a text key are none
    r"api|access|secret|private|auth|account|admin|client|deploy|encryption|license|master|service|session"
    r"|shared|signing|ssh|storage|subscription|user|anthropic|aws|azure|comet|gcp|gemini|github|gitlab|google"
    r"|groq|hf|huggingface|kaggle|mistral|mlflow|neptune|openai|wandb"
)
_OF_TEXT = re.compile(  # tokens of a text, before 'token'
    r"pad|eos|bos|cls|sep|unk|mask|special|image|audio|video|class|start|end|stop|prompt|first|last|next|per"
    r"|num|n|max|min|text|source|target|src|tgt|lang|think|system|user|assistant|by|decoder|encoder"
)
_UNCERTAIN = ("key", "keys", "token", "auth", "authorization", "bearer")
_GIVEN_OUT = re.compile(r"(sk|pk|rk|hf|gh[opsu]|github_pat|glpat|xox[a-z]|pypi|AKIA|eyJ)[-_]?")
_VARIABLE = re.compile(r"(?i)(key|token|secret|password|passwd)$|^NOTIFY$")
_ADDRESS = re.compile(r"[^\s,]+")

_NAME_IN_JSON = re.compile(
    rb"""(?i)(?:keys?|token|secrets?|passwords?|passwd|passphrase|pwd|credentials?|auth|authorization|bearer)"""
    rb"""[^a-z":]*"\s*:"""
)
_USER_INFO = re.compile(r"""(?<=://)[^/\s"'<>]+(?=@)""")  # user:password of an address
_QUERY = re.compile(r"""([?&;]([\w.-]+)=)([^&;\s"'#<>]+)""")
_HEADER = re.compile(
    r"""(?i)(\bauthorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?)([^\s"',]{8,})"""
)
_LINE = re.compile(r"^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*[=:](.*)$", re.MULTILINE)
_IN_CODE = re.compile(  # name = 'text', name: str = 'text', f(name='text'), {'name': 'text'}, x['name'] = ''
    r"""(?<![\w-])([\w-]+)["']?\]?\s*(?::\s*[\w.]+\s*)?[=:]\s*[rRuUbB]?"""
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
)
_MAGIC = re.compile(r"^[ \t]*%(?:set_)?env[ \t]+(\w+)\s*[= ]\s*(\S+)", re.MULTILINE)

_told: set[str] = set()


@functools.lru_cache(maxsize=8192)
def _kind(name: str) -> Literal["secret", "uncertain", ""]:
    """Return what the words of a name say: where it is uncertain, the value must look like a key."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or "/" in name:  # val/token is a metric
        return ""
    *before, last = words
    of_keys = any(map(_OF_KEYS.fullmatch, before))
    if last == "token":
        known = not any(map(_OF_TEXT.fullmatch, before))
    elif last in ("key", "keys"):
        known = words == ["key"] or of_keys
    else:
        known = _LAST.fullmatch(last) is not None
    if not known:
        return ""
    return "secret" if of_keys or last not in _UNCERTAIN else "uncertain"


def is_secret_name(name: str) -> bool:
    """Tell whether what has this name is a secret: api_key, hf_token, PASSWORD, clientSecret and the like.

    Names of a text's tokens (pad_token, max_tokens), of keys to look up by (sort_key) and of sizes (key_dim,
    token_length) are none.
    """
    return bool(_kind(name))


@functools.lru_cache(maxsize=1024)
def _names_secret(variable: str) -> bool:
    return bool(_VARIABLE.search(variable) or _kind(variable))


def is_secret(name: str, value: Any) -> bool:
    """Tell whether what has this name and value is a secret.

    `key`, `token` or `auth` may also name a column, a word or a mode: there the value must look like a key.
    """
    kind = _kind(name)
    return kind == "secret" or (kind == "uncertain" and looks_like_key(str(value)))


def looks_like_key(text: str) -> bool:
    """Tell whether a text is like what services give out, and like no word, name or path."""
    if len(text) < SHORTEST or " " in text:
        return False
    mixed = any(map(str.islower, text)) and any(map(str.isupper, text[1:]))
    return mixed or any(map(str.isdigit, text)) or _GIVEN_OUT.match(text) is not None


def remember(values: Iterable[Any]) -> None:
    """Let this process hide these values too, wherever they stand: those of settings named like secrets, say.

    A plain word is not looked for: it would be cut out of texts and metrics that have nothing to do with it.
    """
    texts = (value for value in values if isinstance(value, str) and _tells(value))
    _told.update(value for value in texts if not (value.isalpha() and value.islower()))
    _lately.cache_clear()


def of_address(text: str) -> list[str]:
    """Return the addresses in a text, such as `NOTIFY`, and the parts of each that look like keys."""
    whole = [each.strip("\"'") for each in _ADDRESS.findall(text)]
    parts = [part for each in whole for part in re.split(r"[^\w-]+", each) if looks_like_key(part)]
    return [each for each in whole + parts if _tells(each)]


def named(value: Any, name: str = "") -> list[Any]:
    """Return the texts and numbers in some settings that stand under a secret's name."""
    if isinstance(value, Mapping):
        return [found for key, each in value.items() for found in named(each, str(key))]
    values = list(value) if isinstance(value, list | tuple | set) else [value]
    return [each for each in values if is_secret(name, each)]


def named_in(code: str) -> list[str]:
    """Return the texts that Python code gives to secrets' names, as in `api_key = "..."`."""
    found: list[tuple[str, str]] = _MAGIC.findall(code)
    for name, text in _IN_CODE.findall(code):
        value = text[1:-1]
        with suppress(ValueError, SyntaxError):
            value = str(ast.literal_eval(text))
        found.append((name, value))
    return [text for name, text in found if is_secret(name, text)]


def without_secrets(text: str) -> str:
    """Return text with `***` in place of each secret that is known by now, and of passwords in addresses."""
    return _without(text, _known())


def of_tag(tag: str) -> str:
    """Return the name of a curve with `***` for what looks like a key: a word in it is no secret's doing."""
    return _without(tag, _keys(lately_known()))


def hidden(value: Any, name: str = "", *, by_name: bool = True) -> Any:
    """Return settings, or anything else that JSON can hold, less its secrets; what holds none is the same.

    With `by_name` what stands under a secret's name is one, whatever it is.
    """
    return _hidden(value, name if by_name else None, _known())


def lately_known() -> tuple[str, ...]:
    """Return the secrets known a moment ago, the longest first: cheap enough for each point of a curve."""
    return _lately(int(time.monotonic() / _FRESH))


def may_hold(content: bytes) -> bool:
    """Tell, at once, whether bytes may hold a secret; the answer is as old as `lately_known`."""
    known = _lately_encoded(lately_known())
    return any(each in content for each in known) or b"://" in content or b"uthorization" in content


def may_hold_in_json(content: bytes) -> bool:
    """Tell, at once, whether JSON may hold a secret, or a name that is one's."""
    return _NAME_IN_JSON.search(content) is not None or may_hold(content)


class Stream:
    """A text that comes in pieces, of which each is given back less its secrets.

    What may be the beginning of a secret is held back until it is clear whether it goes on as one.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what can be shown by now."""
        known = lately_known()
        text = _without(self._held + piece, known)
        place = _begun(text, known)
        self._held = text[place:]
        return text[:place]

    def rest(self) -> str:
        """Return what was held back: nothing follows it any more."""
        text, self._held = self._held, ""
        return text


def _begun(text: str, known: Iterable[str]) -> int:
    """Return where the longest end of `text` begins that is the beginning of a secret."""
    first = len(text)
    for secret in known:
        place = text.find(secret[0], max(0, len(text) - len(secret) + 1))
        while 0 <= place < first:
            if secret.startswith(text[place:]):
                first = place
            place = text.find(secret[0], place + 1)
    return first


def _hidden(value: Any, name: str | None, known: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return HIDDEN if value and name and is_secret(name, value) else _without(value, known)
    if isinstance(value, Mapping):
        keys = _keys(known)  # names of metrics and settings stay what they are
        return {
            _without(key, keys) if isinstance(key, str) else key: _hidden(
                each, None if name is None else str(key), known
            )
            for key, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        kind = next(each for each in (list, tuple, set, frozenset) if isinstance(value, each))
        return kind(_hidden(each, name, known) for each in value)
    if name and isinstance(value, int | bytes) and is_secret(name, value) and len(str(value)) >= SHORTEST:
        return HIDDEN
    return value


def _without(text: str, known: tuple[str, ...]) -> str:
    for secret in known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _USER_INFO.sub(HIDDEN, text)
        text = _QUERY.sub(lambda each: each[1] + (HIDDEN if is_secret_name(each[2]) else each[3]), text)
    return _HEADER.sub(rf"\1{HIDDEN}", text) if "uthorization" in text else text


@functools.lru_cache(maxsize=4)
def _keys(known: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the secrets that look like keys."""
    return tuple(each for each in known if looks_like_key(each))


def _known() -> tuple[str, ...]:
    """Return all secrets, and how JSON and addresses write them, the longest first."""
    values = {value for name, value in os.environ.items() if _names_secret(name) and _tells(value)}
    values |= {part for value in os.environ.values() for part in _passwords(value)}
    values |= set(of_address(os.environ.get("NOTIFY", "")))
    values |= _in_file(paths.root() / ".env") | _told
    forms = {form for value in values for form in _forms(value)}
    return tuple(sorted(forms, key=len, reverse=True))


@functools.lru_cache(maxsize=1)
def _lately(moment: int) -> tuple[str, ...]:  # noqa: ARG001 - its value is what makes it fresh
    return _known()


@functools.lru_cache(maxsize=1)
def _lately_encoded(known: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(each.encode(errors="surrogateescape") for each in known)


def _tells(value: str) -> bool:
    """Tell whether a value is one to hide: long enough, and not the place where a key lies."""
    is_place = value.startswith(("/", "./", "~")) and len(value) < 256 and Path(value).expanduser().exists()
    return len(value) >= SHORTEST and not is_place and value != HIDDEN


def _forms(value: str) -> set[str]:
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= _LONG}
    lines = {line for line in lines if not line.startswith("-----")} if "\n" in value else set()
    escaped = {json.dumps(value, ensure_ascii=each)[1:-1] for each in (True, False)}
    return {value, quote(value, safe=""), *escaped, *lines}


def _in_file(path: Path) -> set[str]:
    """Return the secrets that a `.env` holds: as they stand there, and without quotes and comments."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return set()
        text = path.read_text("utf-8-sig", "replace")
    except OSError:
        return set()
    found = set()
    for name, value in _LINE.findall(text):
        if _names_secret(name):
            bare = value.strip()
            found |= {bare, bare.partition(" #")[0].strip(), bare.strip("\"'")}
            found |= set(of_address(value) if name.upper() == "NOTIFY" else ())
        found |= set(_passwords(value))
    return {value for value in found if _tells(value)}


def _passwords(value: str) -> list[str]:
    """Return the passwords in an address: libraries may print them apart from it."""
    parts = (part.partition(":") for part in _USER_INFO.findall(value))
    found = [password or (user if len(user) >= _LONG else "") for user, _, password in parts]
    return [password for password in found if _tells(password)]
