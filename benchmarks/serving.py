"""What an export costs and saves, and what its server can take.

    for each in news sentiment captions; do trainlab run $each && trainlab export-model last; done
    .venv/bin/python benchmarks/serving.py --output benchmarks/serving.md

First bytes, the gate's figures, and CPU time and time of one text or picture, torch in fp32 beside
onnxruntime, for the newest exported run of each experiment. One thread each; the ways take turns, so that
whatever else runs on the machine slows all of them. Of each way the least time of all rounds counts, and the
CPU time of a whole round.

Then a server of the same network with 160,000 items, in a process of its own: from its start to its first
answer, and requests that come at a steady rate, whether those before are answered or not. A request's time
counts from when it was due. The items are made of the run's own, so that their vectors spread as a trained
run's do. CPU time tells what an idle machine could take where this one is not.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import io
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from experiments.news.model import NewsModel
from experiments.news.tokens import Tokens
from trainlab import paths
from trainlab.run import record
from trainlab.run.restoring import BEST, restore
from trainlab.serving import bundle
from trainlab.serving.pictures import Pictures
from trainlab.serving.texts import Texts
from trainlab.system import hardware

Way = Callable[[Any], object]
TORCH, ONNX = "torch fp32", "onnxruntime fp32"
ROUNDS, TEXTS = 5, 40
ITEMS, CONNECTIONS = 160_000, 32
STARTS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="where the table goes; default: printed")
    parser.add_argument("--rates", default="25,50,100", help="requests a second")
    parser.add_argument("--seconds", type=float, default=20, help="at each rate")
    options = parser.parse_args()
    rates = [int(each) for each in options.rates.split(",")]
    torch.set_num_threads(1)
    table = (
        f"One thread of {platform.machine()} ({hardware().get('cpu', 'CPU not known')}), torch "
        f"{torch.__version__}; the machine's load was {os.getloadavg()[0]:.0f}.\n"
    )
    for experiment, ways_of in (("sentiment", ways_of_sentiment), ("captions", ways_of_captions)):
        run, exported = newest(experiment)
        table += text_of(experiment, exported, measured(*ways_of(run, exported)))
    run, exported = newest("news")
    table += text_of("news", exported, measured(*ways_of_news(run, exported)))
    titles = exported.json("items.json")["title"][:TEXTS]
    with tempfile.TemporaryDirectory() as folder:
        table += served_text(*served(exported, Path(folder), titles, rates, options.seconds), options.seconds)
    if options.output:
        options.output.write_text(table)
    print(table)


def newest(experiment: str) -> tuple[Path, bundle.Bundle]:
    """Return the newest run of an experiment that is exported, and its bundle."""
    for run in sorted((paths.logs() / experiment).iterdir(), reverse=True):
        for export in reversed(getattr(record.read(run), "exports", None) or []):
            if (paths.models() / export["folder"]).is_dir():  # others were put elsewhere
                return run, bundle.read(paths.models() / export["folder"])
    raise SystemExit(
        f"No run of {experiment} is exported: trainlab run {experiment} && trainlab export-model last"
    )


def ways_of_news(run: Path, exported: bundle.Bundle) -> tuple[dict[str, Way], list[Any]]:
    """Return how torch and onnxruntime embed a title, and titles."""
    texts, model = Texts(exported), restore(NewsModel, run / BEST)
    titles = exported.json("items.json")["title"][:TEXTS]
    ways: dict[str, Way] = {
        TORCH: lambda item: model.embed(tokens_of(model, item)),
        ONNX: lambda item: texts.run([item]),
    }
    return ways, [texts.item(title) for title in titles]


def ways_of_sentiment(run: Path, exported: bundle.Bundle) -> tuple[dict[str, Way], list[Any]]:
    """Return how torch and onnxruntime judge a review, and reviews."""
    from experiments.sentiment.config import SentimentConfig
    from experiments.sentiment.data import draw
    from experiments.sentiment.export import Scores, reference
    from experiments.sentiment.model import load

    texts, classifier = Texts(exported), load(run)
    scores = Scores(classifier).eval()
    ways: dict[str, Way] = {
        TORCH: lambda item: reference(classifier, scores, item),
        ONNX: lambda item: texts.run([item]),
    }
    parts = draw(SentimentConfig.parse(record.read(run).config)).parts()
    return ways, [[text] for text in list(parts["test"]["text"])[:TEXTS]]


def ways_of_captions(run: Path, exported: bundle.Bundle) -> tuple[dict[str, Way], list[Any]]:
    """Return how torch and onnxruntime write a caption, by the run's own beam, and pictures."""
    from experiments.captions.config import CaptionsConfig
    from experiments.captions.data import draw_corpus
    from experiments.captions.model import CaptionsModel
    from experiments.captions.train import seen

    corpus = draw_corpus(CaptionsConfig.parse(record.read(run).config))
    model, writer = restore(CaptionsModel, run / BEST), Pictures(exported)
    ways: dict[str, Way] = {
        TORCH: model.caption,
        ONNX: lambda picture: writer.caption(picture.numpy()),
    }
    return ways, list(seen(corpus, corpus.test[:TEXTS]).split(1))


def tokens_of(model: NewsModel, item: list[str]) -> Tokens:
    """Return an item's tokens, without the tokenizer's copy that `tokenize` makes for a data set."""
    encoded = model.tokenizer.encode_batch(item)
    return Tokens(
        torch.tensor([[each.ids for each in encoded]]),
        torch.tensor([[each.attention_mask for each in encoded]]),
    )


def measured(ways: dict[str, Way], items: list[Any]) -> dict[str, tuple[float, float]]:
    """Return each way's least milliseconds, and least CPU milliseconds, a text."""
    found = dict.fromkeys(ways, (float("inf"), float("inf")))
    for way in ways.values():
        way(items[0])
    for _ in range(ROUNDS):
        for name, way in ways.items():
            used = time.process_time()
            least = float("inf")
            for item in items:
                one = time.perf_counter()
                way(item)
                least = min(least, time.perf_counter() - one)
            cpu = (time.process_time() - used) / len(items)
            found[name] = min(found[name][0], 1e3 * least), min(found[name][1], 1e3 * cpu)
    return found


def text_of(experiment: str, exported: bundle.Bundle, times: dict[str, tuple[float, float]]) -> str:
    base = times[TORCH][1]
    rows = "\n".join(
        f"| {name} | {least:.1f} | {cpu:.1f} | {cpu / base:.2f} |" for name, (least, cpu) in times.items()
    )
    held = ", ".join(f"{name} {len(content) / 1e6:.2f} MB" for name, content in exported.content.items())
    figures = exported.json("card.json")["gate"]
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in figures.items())
    return (
        f"\n## {experiment}\n\n"
        "| one at a time | least ms | CPU ms | of torch's CPU |\n|---|---|---|---|\n"
        f"{rows}\n\nThe bundle: {held}.\n\nThe gate: {shown}.\n"
    )


def served(
    exported: bundle.Bundle, models: Path, titles: list[str], rates: list[int], seconds: float
) -> tuple[list[float], list[float], list[list[float]]]:
    """Return the seconds of each cold start, the CPU seconds of each, and a row of figures for each rate."""
    environment = os.environ | {"TRAINLAB_MODELS": str(models), "SERVE_TOKEN": ""}
    os.environ["TRAINLAB_MODELS"] = str(models)
    (models / "served").write_text(f"{larger(exported, models)}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    starts, cpu, rows = [], [], []
    for number in range(STARTS):
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "trainlab.serving.server", "--port", str(port)], env=environment
        )
        try:
            wait(port, process)
            starts.append(time.perf_counter() - began)
            cpu.append(sum(psutil.Process(process.pid).cpu_times()[:2]))
            if number == STARTS - 1:
                rows = [loaded(psutil.Process(process.pid), port, titles, rate, seconds) for rate in rates]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return starts, cpu, rows


def larger(exported: bundle.Bundle, models: Path) -> str:
    """Write a bundle of the same network with many items, each between two of the run's; return its name."""
    random, vectors = np.random.default_rng(0), exported.array().astype(np.float32)
    first, second = random.integers(0, len(vectors), (2, ITEMS))
    share = random.uniform(0, 1, (ITEMS, 1)).astype(np.float32)
    many, file = (share * vectors[first] + (1 - share) * vectors[second]).astype(np.float16), io.BytesIO()
    np.save(file, many)
    known = exported.json("items.json")
    listed = {name: [texts[row] for row in first] for name, texts in known.items()}
    listed["title"] = [f"{title} ({number})" for number, title in enumerate(listed["title"])]
    folder = models / "many"
    folder.mkdir()
    for name, content in exported.content.items():
        (folder / name).write_bytes(content)
    (folder / "items.npy").write_bytes(file.getvalue())
    (folder / "items.json").write_text(json.dumps(listed))
    bundle.trust(bundle.seal(folder, "nearest"), folder.name)
    return folder.name


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server says that it is ready; end where it has ended, with the reason above."""
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.01)
        finally:
            connection.close()
    sys.exit(f"error: the server has ended, with exit code {process.returncode}")


def loaded(process: psutil.Process, port: int, titles: list[str], rate: int, seconds: float) -> list[float]:
    """Return of a rate: answers of 200 and others, p50 and p95 in ms, CPU ms a request, memory in MB."""
    asyncio.run(asked(port, rate, 2, titles))  # warm
    before = sum(process.cpu_times()[:2])
    times, statuses = asyncio.run(asked(port, rate, seconds, titles))
    cpu = sum(process.cpu_times()[:2]) - before
    good = statuses.count(200)
    middle, late = (float(1e3 * np.quantile(times, share)) for share in (0.5, 0.95))
    return [
        rate,
        good,
        len(statuses) - good,
        middle,
        late,
        1e3 * cpu / len(times),
        process.memory_info().rss / 1e6,
    ]


async def asked(port: int, rate: int, seconds: float, titles: list[str]) -> tuple[list[float], list[int]]:
    """Ask at a steady rate over open connections; return seconds from when each was due, and status."""
    due: asyncio.Queue[tuple[float, str]] = asyncio.Queue()
    times: list[float] = []
    statuses: list[int] = []

    async def client() -> None:
        reader = writer = None
        while True:
            at, title = await due.get()
            body = json.dumps({"title": title}).encode()
            head = "POST /api/nearest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            if (
                reader is None or writer is None or reader.at_eof()
            ):  # at first, or the server has ended it idle
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            told = await reader.readuntil(b"\r\n\r\n")
            size = int(told.lower().partition(b"content-length:")[2].split()[0])
            await reader.readexactly(size)
            times.append(time.perf_counter() - at)
            statuses.append(int(told.split()[1]))

    clients = [asyncio.create_task(client()) for _ in range(CONNECTIONS)]
    began, count = time.perf_counter(), int(rate * seconds)
    for number in range(count):
        at = began + number / rate
        await asyncio.sleep(max(0, at - time.perf_counter()))
        due.put_nowait((at, titles[number % len(titles)]))
    while len(times) < count:
        for each in clients:
            if each.done():
                each.result()  # whatever has ended it
        await asyncio.sleep(0.01)
    for each in clients:
        each.cancel()
    return times, statuses


def served_text(starts: list[float], cpu: list[float], rows: list[list[float]], seconds: float) -> str:
    table = "\n".join(
        "| {:.0f} | {:.0f} | {:.0f} | {:.0f} | {:.0f} | {:.1f} | {:.0f} |".format(*row) for row in rows
    )
    head = ("requests/s", "answered", "refused", "p50 ms", "p95 ms", "CPU ms each", "memory MB")
    return (
        f"\nA server of this network with {ITEMS:,} items; {seconds:g} s a rate, {CONNECTIONS} connections; "
        f"the machine has {os.cpu_count()} cores, which the client shares, and its load was "
        f"{os.getloadavg()[0]:.0f}:\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|\n{table}\n\n"
        f"By their CPU time alone {os.cpu_count()} cores that nobody else uses could answer "
        f"{1e3 * (os.cpu_count() or 1) / min(row[5] for row in rows):.0f} requests/s. "
        f"From its start to its first answer: {', '.join(f'{each:.1f}' for each in starts)} s, of which CPU "
        f"{', '.join(f'{each:.1f}' for each in cpu)} s.\n"
    )


if __name__ == "__main__":
    main()
