"""Findings as people read them: a table, JSON, and what TensorBoard shows."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure
    from rich.table import Table

    from trainlab.checks.finding import Finding
    from trainlab.run.run import Run

STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}
SERIES = ("curves", "texts")  # these go to TensorBoard alone


def table(findings: Sequence[Finding]) -> Table:
    """Return a table with a row for each check; a failed one says what that usually means."""
    from rich.table import Table
    from rich.text import Text

    shown = Table("", "check", "", "found", "passes when", "seconds", show_lines=True)
    for each in findings:
        found = Text(each.found)
        if each.status == "failed":
            found.append(f"\nusually: {each.means}", style="italic")
        status = Text(each.status, style=STYLES[each.status])
        shown.add_row(str(each.number), each.name, status, found, Text(each.threshold), f"{each.seconds:.1f}")
    return shown


def as_json(findings: Sequence[Finding]) -> str:
    """Return a JSON list with one object a check."""
    objects = [{key: value for key, value in asdict(each).items() if key not in SERIES} for each in findings]
    return json.dumps(objects, indent=2)


def as_markdown(findings: Sequence[Finding]) -> str:
    """Return a Markdown table."""
    lines = [
        "| | check | | found | passes when | a failure usually means | seconds |",
        "|--:|---|---|---|---|---|--:|",
    ]
    for each in findings:
        texts = (each.name, f"**{each.status}**", each.found, each.threshold, each.means)
        cells = " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts)
        lines.append(f"| {each.number} | {cells} | {each.seconds:.1f} |")
    return "\n".join(lines)


def plot_curves(findings: Sequence[Finding]) -> Figure:
    """Draw the losses of the checks' trainings: a panel for what stands before the slash of their tags."""
    import matplotlib.pyplot as plt

    curves = [curve for each in findings for curve in each.curves.items()]
    titles = list(dict.fromkeys(tag.partition("/")[0] for tag, _ in curves)) or ["no check with a training"]
    figure, panels = plt.subplots(
        1, len(titles), figsize=(5.5 * len(titles), 3.5), layout="constrained", squeeze=False
    )
    for title, axes in zip(titles, panels[0], strict=True):
        for tag, losses in curves:
            if tag.startswith(f"{title}/"):
                axes.plot(losses, ".-", label=tag.removeprefix(f"{title}/"))
        axes.set(title=title, xlabel="step", ylabel="loss")
        axes.grid(alpha=0.3)
        if curves:
            axes.legend(fontsize="small")
    plt.close(figure)
    return figure


def record(run: Run, findings: Sequence[Finding]) -> None:
    """Write the table, 1 or 0 for each check that passed or failed, and what the trainings showed."""
    run.log_text("checks", as_markdown(findings), 0)
    run.log({f"check/{status}": sum(each.status == status for each in findings) for status in STYLES}, 0)
    run.log({_tag(each): each.status == "passed" for each in findings if each.status != "skipped"}, 0)
    for tag, step, value in _points(findings):
        run.log({tag: value}, step)
    for each in findings:
        for tag, texts in each.texts.items():
            for epoch, text in enumerate(texts):
                run.log_text(tag, text, epoch)


def _tag(finding: Finding) -> str:
    return f"check/{finding.number:02}-{finding.name.replace(' ', '-')}"


def _points(findings: Sequence[Finding]) -> Iterator[tuple[str, int, float]]:
    for each in findings:
        for tag, values in each.curves.items():
            yield from ((tag, step, value) for step, value in enumerate(values))
