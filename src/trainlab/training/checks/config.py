"""Settings of `notebooks/checks.ipynb`."""

from __future__ import annotations

from pydantic import Field

from trainlab import experiments
from trainlab.config import Config, assignments
from trainlab.errors import UserError


class CheckConfig(Config):
    """What is checked: an `experiment`, under its `settings` (key=value, by blanks), `only` some numbers."""

    experiment: str = Field("news", min_length=1)
    settings: str = ""
    only: str = ""

    def preflight(self) -> None:
        """Raise UserError for an unknown experiment or check, or a word that is no setting."""
        experiments.known(self.experiment)
        self.given()
        self.numbers()

    def given(self) -> dict[str, str]:
        """Return the experiment's settings by name."""
        return assignments(self.settings.split())

    def numbers(self) -> list[int]:
        """Return the numbers of the checks to make, all where none is named."""
        words = [word.strip() for word in self.only.split(",") if word.strip()]
        for word in words:
            if not word.isdigit() or not 1 <= int(word) <= COUNT:
                raise UserError(
                    f"only={self.only}: {word!r} is no check. Expected numbers from 1 to {COUNT}."
                )
        return sorted({int(word) for word in words}) or list(range(1, COUNT + 1))


COUNT = 14  # of the recipe
