"""What gpu.py measures: each function here is work for a process of its own, and returns rows of its table.

All of them take the device, so that the tests can have them on the CPU, where sizes are tiny and times say
nothing. Whatever one raises stands in the row in place of its figures.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from news_step import Measured, batch_loss, built, made_up, measure, median, product
from torch.nn import functional

from experiments.news.model import Padding
from trainlab.system import Gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from news_step import Variant

    from experiments.news.config import NewsConfig
    from experiments.news.model import Batch, Runs

SAMPLE = Path(__file__).parents[1] / "data" / "sample" / "news.tsv"
WORDS, SPREAD, FEWEST, MOST = 11, 3.3, 3, 30  # of a title; MIND's have 11, the spread is assumed
TITLES = {"cuda": 200, "cpu": 12}  # of a category
SQUARE = {"cuda": 8192, "cpu": 256}
OURS = ("as published", "plain", "fast")
RIVAL = "sentence-transformers"
COMPILED, VARLEN, NESTED = "compiled", "varlen_attn", "nested"
CLOSE = 0.05  # of the vectors' own spread; 16 bits round a layer's numbers by a few thousandths
TWO = {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "dropout": 0.0, "attention_dropout": 0.0}
STEPS_OF_TWO, CLOSE_OF_TWO = 10, 1e-3  # relative; two halves are added up in another order
QUERY = {  # our figures, what nvidia-smi calls them, and how many of its units are one of ours
    "gpu_percent": ("utilization.gpu", 1),
    "gpu_memory_gib": ("memory.used", 1024),
    "gpu_watts": ("power.draw", 1),
    "gpu_celsius": ("temperature.gpu", 1),
}


Size = tuple[str, int, str]  # backbone, triplets, numbers


class NotHereError(Exception):
    """This machine, or its torch, has not what this row measures."""


def mind_titles(folder: Path, device: str) -> Path:
    """Write news with titles of MIND's lengths: words of the sample's titles, in any order."""
    rng = np.random.default_rng(0)
    titles: dict[str, list[str]] = {}
    for line in SAMPLE.read_text().splitlines():
        _, category, _, title, *_ = line.split("\t")
        titles.setdefault(category, []).extend(title.split())
    rows = []
    for category, words in titles.items():
        lengths = np.clip(rng.normal(WORDS, SPREAD, TITLES[device]).round(), FEWEST, MOST).astype(int)
        for length in lengths.tolist():
            title = " ".join(rng.choice(words, length))
            rows.append(f"G{len(rows)}\t{category}\t{category}\t{title}\t\t\t[]\t[]\n")
    file = folder / "news.tsv"
    file.write_text("".join(rows))
    return file


def measured(device: str, steps: int, size: Size, names: tuple[str, ...]) -> Measured:
    """Measure a step with the titles above; `size` is the backbone, the triplets and the numbers."""
    with tempfile.TemporaryDirectory() as folder:
        data = {"data": str(mind_titles(Path(folder), device)), "class_size": TITLES[device]}
        options: dict[str, Any] = {"device": device, "repeats": steps, "square": SQUARE[device]}
        return measure(*size, names, **options, variant=partial(variant, device=device), **data)


def step(device: str, steps: int, size: Size) -> Iterator[list[str]]:
    """Measure the training step as news_step.py does; without sentence-transformers where it isn't there."""
    rival = (RIVAL,) if find_spec("sentence_transformers") else ()
    found = measured(device, steps, size, (*OURS, *rival))
    fast = found.seconds["fast"]
    cells = [median(found.seconds[name], 4) for name in OURS]
    cells += [median(found.seconds[RIVAL], 4) if rival else "not installed"]
    pairs = zip(found.seconds[RIVAL], fast, strict=True) if rival else ()
    cells += [median([theirs / ours for theirs, ours in pairs], 2) if rival else ""]
    tera = statistics.median(found.peak / each for each in found.product) / 1e12
    share = f"{median(found.shares('fast'), 1)} %"
    yield [f"{found.texts}", f"{found.tokens:,}", *cells, share, f"{tera:.1f}"]


def beside(device: str, steps: int, size: Size, names: tuple[str, ...]) -> Iterator[list[str]]:
    """Measure another way to make a step beside the plain and the fast one."""
    found = measured(device, steps, size, ("plain", *names, "fast"))
    right = found.vectors["fast"]
    spread = (right - right.mean(0)).norm()
    for name in ("plain", *names, "fast"):
        seconds, apart = found.seconds[name], float((found.vectors[name] - right).norm() / spread)
        times = [each / ours for each, ours in zip(seconds, found.seconds["fast"], strict=True)]
        said = f"{apart:.1e}{'' if apart <= CLOSE else ', too far'}"
        share = f"{median(found.shares(name), 1)} %"
        yield [name, f"{found.first[name]:.1f}", median(seconds, 4), median(times, 2), share, said]


def variant(name: str, batch: Batch, config: NewsConfig, device: str) -> Variant:
    """Return the plain network compiled, or the fast one with another attention."""
    model = built(config, name != COMPILED, device)
    if name == COMPILED:
        # the CPU is for the tests alone: what its compiler makes is not measured
        model.backbone.compile(backend="inductor" if device == "cuda" else "eager")
    else:
        use_attention(model.backbone, {VARLEN: varlen_attention, NESTED: nested_attention}[name], name)
    return model, partial(batch_loss, model, batch)


def use_attention(backbone: Any, attention: Callable[..., Any], name: str) -> None:
    """Let the layers of a backbone attend to their packed texts in another way."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(f"trainlab-{name}", attention)
    AttentionMaskInterface.register(f"trainlab-{name}", sdpa_mask)
    backbone.set_attn_implementation(f"trainlab-{name}")


def bounds(runs: Runs | Padding, device: torch.device) -> tuple[torch.Tensor, int]:
    """Return where each text begins, and the last ends [N + 1], and the tokens of the longest at most."""
    if isinstance(runs, Padding):
        lengths, longest = runs.mask.sum(-1), runs.mask.shape[1]
    else:
        lengths = torch.tensor([size for texts, size in runs for _ in range(texts)], device=device)
        longest = max(size for _, size in runs)
    return functional.pad(lengths.cumsum(0), (1, 0)), longest


def varlen_attention(
    _: Any, *given: Any, runs: Any, scaling: float | None = None, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attend by torch's kernel for texts of any lengths, which knows no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (each[0].transpose(0, 1).contiguous() for each in given[:3])
    where, longest = bounds(runs, query.device)
    where = where.int()
    return varlen_attn(query, key, value, where, where, longest, longest, scale=scaling)[None], None


def nested_attention(
    _: Any, *given: Any, runs: Any, dropout: float = 0.0, scaling: float | None = None, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attend by torch's nested tensors."""
    query, key, value = (each[0].transpose(0, 1).contiguous() for each in given[:3])
    where, longest = bounds(runs, query.device)
    texts = (
        torch.nested.nested_tensor_from_jagged(each, where, min_seqlen=1, max_seqlen=longest).transpose(1, 2)
        for each in (query, key, value)
    )
    attended = functional.scaled_dot_product_attention(*texts, dropout_p=dropout, scale=scaling)
    return attended.transpose(1, 2).values()[None], None


def varlen(device: str, steps: int, size: Size) -> Iterator[list[str]]:
    """Measure the fast step with torch's own attention for texts of any lengths."""
    if not find_spec("torch.nn.attention.varlen"):
        raise NotHereError(f"torch {torch.__version__} has no torch.nn.attention.varlen")
    if device != "cuda":
        raise NotHereError("torch.nn.attention.varlen is for CUDA alone")
    yield from beside(device, steps, size, (VARLEN,))


def two(device: str, steps: int, backend: str) -> Iterator[list[str]]:  # noqa: ARG001 - as the others have it
    """Train the news network in one process and in two on the one device; compare each step's loss."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id="gpu",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        start_method="spawn" if device == "cuda" else "fork",
    )
    with tempfile.TemporaryDirectory() as folder:
        made_up(folder, **TWO)
        mind_titles(Path(folder), device)
        shared = elastic_launch(launch, as_host)(device, folder, backend)[0]
        alone = losses_of_training(device, folder)
    apart = max(abs(one - both) / abs(one) for one, both in zip(alone, shared, strict=True))
    said = f"{apart:.1e}{'' if apart <= CLOSE_OF_TWO else ', too far'}"
    yield [f"{len(alone)}", f"{alone[0]:.4f}", f"{alone[-1]:.4f}", f"{shared[-1]:.4f}", said]


def as_host(device: str, folder: str, backend: str) -> list[float]:
    """Be one of two hosts with a process each: two processes of one host would get a GPU each."""
    os.environ |= {"GROUP_WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # this host's name may lead nowhere
    return losses_of_training(device, folder, backend)


def losses_of_training(device: str, folder: str, backend: str = "") -> list[float]:
    """Train a small network without dropout; return the loss of each step."""
    import trainlab
    from experiments.news.config import NewsConfig
    from experiments.news.data import draw
    from experiments.news.model import NewsModel
    from experiments.news.train import NewsData
    from trainlab.training.distributed import OPTIONS, Started

    settings = {"data": f"{folder}/news.tsv", "backbone": folder, "accelerator": device, "freeze": 0}
    settings |= {"loss": "triplet", "batch_size": 16, "test": 0, "num_workers": 0, "epochs": 1}
    config = NewsConfig.parse(settings | {"limit_train_batches": STEPS_OF_TWO})
    torch.manual_seed(0)
    model, examples = NewsModel.pretrained(config), draw(config)
    data = NewsData(examples, model.tokenize(examples.news.texts(config.text)), config)
    options = {"strategy": Started(process_group_backend=backend, **OPTIONS)} if backend else {}
    with trainlab.Run("benchmark", config, logs=Path(folder, "logs")) as run:
        trainlab.Trainer(run, config, limit_val_batches=0, log_every_n_steps=1, **options).fit(model, data)
    if os.environ.get("RANK", "0") != "0":
        return []  # the first process has recorded them
    history = trainlab.scalars(run.folder)
    return history[history["tag"] == "train/loss"]["value"].tolist()


def vitals(device: str, steps: int) -> Iterator[list[str]]:
    """Sample what a run records of its GPU beside what nvidia-smi says of it, under load."""
    gpus, which = Gpus(), os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if not gpus.sample():
        raise NotHereError("NVIDIA's library gives no figures of a GPU")
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    over = threading.Event()
    load = threading.Thread(target=multiply, args=(device, over), daemon=True)
    load.start()
    try:
        for _ in range(steps):
            time.sleep(1 if device == "cuda" else 0.01)  # the driver's own mean is of up to a second
            before = gpus.sample()
            theirs = nvidia_smi(which)
            after = gpus.sample()
            pairs.append(({name: (before[name] + after[name]) / 2 for name in before}, theirs))
    finally:
        over.set()
        load.join()
        gpus.close()
    for name in QUERY:
        both = [(ours[name], theirs[name]) for ours, theirs in pairs if name in ours and name in theirs]
        if both:
            ours, theirs = zip(*both, strict=True)
            apart = max(abs(one - other) for one, other in both)
            yield [name, median(ours, 1), median(theirs, 1), f"{apart:.1f}", f"{len(both)}"]
        else:
            yield [name, "not told", "", "", "0"]


def multiply(device: str, over: threading.Event) -> None:
    """Multiply matrices until it is over."""
    work = product("fp32", device, SQUARE[device] // 2)
    while not over.is_set():
        work()
        if device == "cuda":
            torch.cuda.synchronize()


def nvidia_smi(which: str) -> dict[str, float]:
    """Return nvidia-smi's figures of a GPU, by our names and in our units."""
    query = ",".join(name for name, _ in QUERY.values())
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", f"--id={which}"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
    found = {}
    for (name, (_, units)), cell in zip(QUERY.items(), said.splitlines()[0].split(","), strict=True):
        if cell.strip().replace(".", "").isdigit():  # else "[N/A]"
            found[name] = float(cell) / units
    return found


def news(device: str, steps: int, way: str) -> Iterator[list[str]]:  # noqa: ARG001 - as the others have it
    """Train the news network until its loss is a tenth of the margin, as news_training.py does."""
    os.environ["DEVICE"] = device  # before its first line
    import news_training

    config, most = news_training.PROTOCOLS["loss"], news_training.MOST["loss"]
    with tempfile.TemporaryDirectory() as folder:
        if device == "cpu":
            config, most = config.model_copy(update={"backbone": made_up(folder, **TWO)}), 1
        found = news_training.trained("loss", way, config, most)
    reached = "reached" if found["reached"] else "not reached"
    target = f"at most {news_training.TARGET * config.margin:g} wanted: {reached}"
    yield [f"{found['seconds']:.1f}", f"held-out loss {found['loss']:.3f}, {target}"]


def epoch(device: str, steps: int, experiment: str) -> Iterator[list[str]]:
    """Train one epoch of an experiment with its own settings, and measure it on the test part."""
    from importlib import import_module

    module = import_module(f"experiments.{experiment}.train")
    kind = getattr(import_module(f"experiments.{experiment}.config"), f"{experiment.capitalize()}Config")
    settings: dict[str, Any] = {"epochs": 1, "accelerator": device}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRAINLAB_LOGS"] = f"{folder}/logs"
        if device == "cpu":
            settings |= {"limit_train_batches": steps, "limit_val_batches": 1, "num_workers": 0}
            tiny = {"pictures": 100, "hidden_size": 8, "limit_test_batches": 1}
            settings |= {"backbone": made_up(folder, **TWO)} if experiment == "sentiment" else tiny
        since = time.perf_counter()
        result = module.train(kind.parse(settings))
        seconds = time.perf_counter() - since
    column = result.table().iloc[:, 0]
    figures = ", ".join(f"{name} {value:.3f}" for name, value in column.items() if name in SHOWN)
    yield [f"{seconds:.1f}", f"on the test: {figures}"]


SHOWN = ("accuracy", "f1", "loss", "bleu", "exact_match")


def tests(device: str, steps: int) -> Iterator[list[str]]:  # noqa: ARG001 - as the others have it
    """Run the tests that need a GPU; on a CPU one file of them, which skips its own."""
    root = Path(__file__).parents[1]
    chosen = root / "tests" / ("" if device == "cuda" else "test_system_gpus.py")
    if not find_spec("pytest"):
        raise NotHereError("pytest is not installed: develop/install-tests")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", chosen]
    found = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # `trainlab`
    done = subprocess.run(command, cwd=root, env=found, capture_output=True, text=True, check=False)
    last = (done.stdout.splitlines() or [done.stderr.strip()])[-1]
    counts = {name: count(done.stdout, name) for name in ("passed", "failed", "error", "skipped")}
    yield [*(f"{each}" for each in counts.values()), "" if any(counts.values()) else last]


def count(said: str, what: str) -> int:
    """Return how many tests pytest's last words call so."""
    for line in reversed(said.splitlines()):
        for part in line.strip("= ").split(","):
            number, _, name = part.strip().partition(" ")
            if number.isdigit() and name.split(" ")[0].removesuffix("s") == what.removesuffix("s"):
                return int(number)
    return 0


def device_facts(device: str, steps: int) -> Iterator[list[str]]:  # noqa: ARG001 - as the others have it
    """Return the name of the device, and what it is driven by; nothing where torch finds none."""
    from trainlab.system import hardware

    if device == "cpu":
        yield [hardware()["cpu"], "no driver", f"torch {torch.__version__}"]
    elif torch.cuda.is_available():
        cuda = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
        yield [torch.cuda.get_device_name(), driver(), cuda]


def driver() -> str:
    """Return the driver's version."""
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
    return f"driver {said.splitlines()[0].strip()}"
