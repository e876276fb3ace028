"""IMDb as the chapter takes it: three slices of `stanfordnlp/imdb` on the Hugging Face Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from trainlab import hub
from trainlab.errors import UserError
from trainlab.sentiment import tables

REPOSITORY = "stanfordnlp/imdb"
FILES = {split: f"plain_text/{split}-00000-of-00001.parquet" for split in ("train", "test")}
WAYS_OUT = (
    "data=sample (the default) needs no hub; data downloaded before works offline (HF_HUB_OFFLINE=1); "
    "a CSV or Parquet table of your own with the columns text,label works too."
)
# "Mastering Transformers", chapter 5: the rows are sorted by label, so each slice is balanced
SLICES = {
    "training": ("train", [slice(0, 2000), slice(-2000, None)]),
    "validation": ("test", [slice(500, 1000), slice(-1000, -500)]),
    "test": ("test", [slice(0, 500), slice(-500, None)]),
}


def read() -> tuple[dict[str, pd.DataFrame], list[str], str]:
    """Return the three slices, sentences about what was left out or cut, and the files' SHA-256.

    Downloads 42 MB the first time, into the Hub's cache. Raises UserError where the Hub can't be reached,
    or its files are not what the slices are made for.
    """
    whole, warnings, digests = {}, [], []
    for split, name in FILES.items():
        path = Path(hub.download("data", REPOSITORY, name, WAYS_OUT))
        table, digest = tables.read(path, "data=imdb")
        table.index = [f"{split} {row}" for row in table.index]
        whole[split], found = tables.clean(path, table)
        warnings += found
        digests.append(digest)
    slices = {side: _cut(side, whole[split], parts) for side, (split, parts) in SLICES.items()}
    return slices, warnings, hashlib.sha256("".join(digests).encode()).hexdigest()


def _cut(side: str, table: pd.DataFrame, parts: list[slice]) -> pd.DataFrame:
    cut = pd.concat([table.iloc[part] for part in parts])
    positive = int(cut["label"].sum())
    if positive * 2 != len(cut):
        raise UserError(
            f"data=imdb: {positive:,} of the {side} slice's {len(cut):,} reviews are positive. Expected half "
            f"of them: the files of {REPOSITORY} are no longer sorted by label."
        )
    return cut
