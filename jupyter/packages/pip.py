"""pip, and a few words more where it refuses: what asked for another torch, which torch is here, what to do.

`hold` puts this file beside the constraints of an environment, and calls it as that environment's `pip`.
Everything is handed on as it came; what pip said is read from its own log.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
CAUSE = re.compile(
    r"^\S+ {5}(?P<who>\S.*?) (?:depends on |requested )(?P<what>[A-Za-z0-9][\w.-]*.*)$", re.MULTILINE
)
SHOWN = 5  # causes


def main() -> int:
    """Call pip; explain what it says where it fails."""
    with tempfile.TemporaryDirectory(prefix="pip-") as folder:
        log = Path(folder, "log")
        environment = {"PIP_LOG": str(log)} | os.environ
        if (
            own := environment.get("PIP_CONSTRAINT")
        ) and CONSTRAINTS.exists():  # it would take the place of the one in pip.conf
            environment["PIP_CONSTRAINT"] = f"{own} {CONSTRAINTS.as_uri()}"
        try:
            code = subprocess.run(
                [sys.executable, "-m", "pip", *sys.argv[1:]], env=environment, check=False
            ).returncode
        except KeyboardInterrupt:
            return 130
        said = log.read_text(errors="replace") if log.exists() else ""
    if "install" in sys.argv[1:]:
        sys.stdout.flush()
        sys.stderr.write(explained(said, sys.argv[1:], code))
    return code if code >= 0 else 128 - code


def explained(said: str, arguments: list[str], code: int) -> str:
    """Return what to add to what pip said; nothing where it can speak for itself."""
    held = CONSTRAINTS.read_text() if CONSTRAINTS.exists() else ""
    versions = dict(re.findall(r"^([\w.-]+)===(\S+)$", held, re.MULTILINE))
    if code == 0:
        asked = [each for each in arguments if name_of(each) in versions]
        if asked and {"-U", "--upgrade"} & set(arguments):
            return f"\n{stays(asked, versions)} To change it: {another_torch()}\n"
        return ""
    if place := re.search(r"lack sys\.path precedence to (\S+)", said):
        return (
            f"\n{place[1]} is part of the image, which a running container cannot change. Write the version\n"
            "that you need into requirements.txt, in the project's folder, and `make up`.\n"
        )
    # of many versions of a package that ask for the same, the first that pip tried, which is the newest
    causes: dict[tuple[str, str], str] = {}
    for who, what in CAUSE.findall(said):
        if name_of(what) in versions:
            causes.setdefault((what, "" if who == "The user" else who.split()[0]), who)
    if not causes:
        return ""
    names = list(dict.fromkeys(name_of(what) for what, _ in causes))
    lines = [f"\n{stays(names, versions)}"]
    for (what, _), who in list(causes.items())[:SHOWN]:
        lines.append(f"  {'you asked' if who == 'The user' else who + ' asks'} for {what}")
    if len(causes) > SHOWN:
        lines.append(f"  and {len(causes) - SHOWN} more")
    lines.append("What to do:")
    others = [name for _, name in causes if name]
    if unfit := [name for name in names if versions[name] == "TORCH_EXTRAS"]:
        lines.append(
            f"  TORCH_EXTRAS={','.join(unfit)} in .env, then `make up`: the build that fits the torch at hand"
        )
    if others and set(names) - set(unfit):
        lines.append(f"  a version of {others[0]} that takes it: `pip index versions {others[0]}` lists them")
    if set(names) - set(unfit):
        lines.append(f"  {another_torch()}")
    return "\n".join(lines) + "\n"


def name_of(requirement: str) -> str:
    """Return the name at the head of a requirement, as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def stays(names: list[str], versions: dict[str, str]) -> str:
    """Return a sentence about what is held."""
    here = [
        f"{name_of(name)} {versions[name_of(name)]}"
        for name in names
        if versions[name_of(name)] != "TORCH_EXTRAS"
    ]
    if not here:
        missing = " and ".join(names)
        return f"{missing}: the usual build does not work with torch {versions['torch']}, which is here."
    verb = "stays" if len(here) == 1 else "stay"
    return f"{' and '.join(here)} {verb}: all that is built against it would break."


def another_torch() -> str:
    """Return how the whole stack gets another torch."""
    return "another torch for all: `TORCH=x.y.z make lock` in trainlab's own repository, then `make up`"


if __name__ == "__main__":
    sys.exit(main())
