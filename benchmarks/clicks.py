"""Made-up readers, and what measuring their clicks costs at the size of MIND-small's dev part.

    benchmarks/clicks.py                  # 73,152 impressions of 50,000 readers: writes benchmarks/clicks.md
    benchmarks/clicks.py --sample FILE    # the readers of data/sample/behaviors.tsv, always the same

A reader has one to three tastes, each a subcategory. Of what they had read, six of ten items are of a taste,
some more of its category, the others anything; some items are read and shown more often than others. Among
an impression's candidates one of a taste is clicked twelve times as often as any other, one of its category
five times. Only sums and `random` are used, which every Python computes alike.

Embedding the news is apart: it is the network's time, and vectors of this width are drawn here.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import resource
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from trainlab import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NEWS = 42_416  # of MIND-small's dev part
WIDTHS = {"run": 256, "untrained": 384}  # of the network's vectors and of MiniLM's
KEPT = ("id", "category", "subcategory", "title", "abstract", "url")


class Size(NamedTuple):
    """Readers; of each, impressions and read items at most; candidates in the mean; rows at most."""

    readers: int
    impressions: int
    read: int
    candidates: int
    rows: int


SAMPLE = Size(500, 3, 40, 16, 1_500)
MIND = Size(50_000, 2, 60, 37, 73_152)


class Shelf(NamedTuple):
    """The ids of some news, and how well read they are, summed up."""

    names: list[str]
    weights: list[float]

    def draw(self, rng: random.Random, count: int) -> list[str]:
        """Return so many of them, none twice; fewer where there are no more."""
        drawn: dict[str, None] = {}
        for _ in range(20 * count):
            if len(drawn) == min(count, len(self.names)):
                break
            drawn[rng.choices(self.names, cum_weights=self.weights)[0]] = None
        return list(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sample", type=Path, metavar="FILE", help="write the sample's readers there")
    options = parser.parse_args()
    sample, columns = paths.data() / "sample" / "news.tsv", range(len(KEPT))
    news = pd.read_csv(
        sample, sep="\t", names=KEPT, usecols=columns, quoting=csv.QUOTE_NONE, keep_default_na=False
    )
    if options.sample:
        rows = made_up(news, SAMPLE)
        options.sample.write_text("".join(rows))
        return
    with tempfile.TemporaryDirectory() as folder:
        table = measured(Path(folder), news)
    Path(__file__).with_suffix(".md").write_text(table)
    print(table)


def made_up(news: pd.DataFrame, size: Size) -> Iterator[str]:
    """Yield the rows of a behaviors.tsv."""
    rng = random.Random(0)
    shelves = {name: shelf(rng, rows) for name, rows in news.groupby("subcategory")}
    rooms = {name: shelf(rng, rows) for name, rows in news.groupby("category")}
    house = shelf(rng, news)
    room_of = dict(zip(news["subcategory"], news["category"], strict=True))
    subcategory_of = dict(zip(news["id"], news["subcategory"], strict=True))
    row = 0
    for reader in range(1, size.readers + 1):
        tastes = rng.choices(list(shelves), k=rng.choice((1, 1, 2, 2, 3)))
        liked = {room_of[taste] for taste in tastes}
        history: dict[str, None] = {}
        for _ in range(rng.choice(range(size.read + 1)) if rng.random() < 0.7 else rng.choice(range(8))):
            taste, luck = rng.choice(tastes), rng.random()
            source = shelves[taste] if luck < 0.6 else rooms[room_of[taste]] if luck < 0.75 else house
            history.update(dict.fromkeys(source.draw(rng, 1)))
        for _ in range(rng.choice(range(1, size.impressions + 1))):
            shown = dict.fromkeys(house.draw(rng, rng.choice(range(4, 2 * size.candidates - 7))))
            shown |= dict.fromkeys(rooms[room_of[rng.choice(tastes)]].draw(rng, 2))
            new = [each for each in shown if each not in history]
            rng.shuffle(new)
            homes = [subcategory_of[each] for each in new]
            likes = [12 if home in tastes else 5 if room_of[home] in liked else 1 for home in homes]
            clicked = rng.choices(new, weights=likes, k=rng.choice((1, 1, 1, 2)))
            words = " ".join(f"{each}-{int(each in clicked)}" for each in new)
            day, hour, minute = rng.choice(range(10, 16)), rng.choice(range(1, 13)), rng.choice(range(10, 60))
            at = f"11/{day}/2019 {hour}:{minute}:00 {rng.choice(('AM', 'PM'))}"
            row += 1
            if row > size.rows:
                return
            yield f"{row}\tR{reader}\t{at}\t{' '.join(history)}\t{words}\n"


def shelf(rng: random.Random, news: pd.DataFrame) -> Shelf:
    """Put news in an order in which the first is read most, the tenth half as often."""
    names = sorted(news["id"], key=lambda _: rng.random())
    return Shelf(names, list(accumulate(1 / (10 + rank) for rank in range(len(names)))))


def measured(folder: Path, news: pd.DataFrame) -> str:
    """Return the table of seconds and memory, after making and measuring readers in a folder."""
    from experiments.news import behaviors, clicks  # with torch, which the sample needs none of
    from experiments.news.train import tfidf

    rng = np.random.default_rng(0)
    large = news.iloc[np.arange(NEWS) % len(news)].reset_index(drop=True)
    words = {name: " ".join(rows["title"]).split() for name, rows in news.groupby("category")}
    large["title"] = [" ".join(rng.choice(words[name], 10)) for name in large["category"]]
    large["id"] = [f"N{row}" for row in range(NEWS)]
    blank = [[*row, "[]", "[]"] for row in large[list(KEPT)].to_numpy().tolist()]
    (folder / "news.tsv").write_text("".join("\t".join(row) + "\n" for row in blank))
    file = folder / "behaviors.tsv"
    with file.open("w") as written:
        written.writelines(made_up(large, MIND))
    rows, began = [], (time.perf_counter(), time.process_time())

    def note(what: str) -> None:
        nonlocal began
        now = time.perf_counter(), time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        rows.append(f"| {what} | {now[0] - began[0]:.1f} | {now[1] - began[1]:.1f} | {peak:.2f} |")
        began = now

    known = behaviors.read(str(file))
    note(f"reading {file.stat().st_size / 1e6:.0f} MB of behaviours, and the news")
    found: dict[str, NDArray[np.float64]] = {clicks.CHANCE: np.zeros(len(known.candidates))}
    found[clicks.POPULARITY] = known.popularity[known.candidates].astype(float)
    found["tfidf"] = clicks.scores(known, tfidf(known.news, "title")[known.items], cosine=True)
    note("TF-IDF: vectors and scores")
    for name, width in WIDTHS.items():
        vectors = rng.standard_normal((len(known.items), width))
        found[name] = clicks.scores(known, vectors, cosine=name != "run")
        note(f"scores by vectors of {width} numbers")
    values = {name: clicks.measure(known, ranked) for name, ranked in found.items()}
    note(f"AUC, MRR and nDCG of {len(found)} systems")
    clicks.groups(known, values)
    note("intervals")
    head = [
        "# What measuring clicks costs\n",
        f"{len(known.ends):,} made-up impressions of {known.readers.max() + 1:,} readers, "
        f"{len(known.candidates):,} candidates, {NEWS:,} news: the size of MIND-small's dev part. "
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end. Embedding "
        "the news comes on top. Made by `benchmarks/clicks.py`.\n",
        "| | seconds | of the CPU | GB of memory at most, so far |",
        "| --- | ---: | ---: | ---: |",
    ]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    main()
