"""Two hosts that train one run, as processes of this machine; hosts are killed, and so is the store."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from training_hosts import DEADLINE, Hosts, hosts, kill, stopped
from trainlab.hosts import agent, rendezvous
from waiting import until

pytestmark = pytest.mark.slow

WHOLE = """
import ddp_work; from pathlib import Path
ddp_work.train(Path("logs"), 1, num_workers=0)
"""
ENDLESS = """
import ddp_work; from pathlib import Path
settings = dict(epochs=1000, checkpoint_every="20", num_workers=0, host_timeout=5)
ddp_work.train(Path("logs"), 1, data=ddp_work.Forever(), **settings)
"""
FAULTY = WHOLE.replace("num_workers=0", "at_step=ddp_work.fail_at_seven, num_workers=0")
LIGHTNING = """
import lightning, trainlab, ddp_work, os
with trainlab.Run("lit", {"epochs": 1}) as run:
    hosts = int(os.environ["GROUP_WORLD_SIZE"])
    options = dict(accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    ddp = dict(devices=1, num_nodes=hosts, strategy="ddp_find_unused_parameters_true")
    options |= dict(logger=trainlab.RunLogger(run), callbacks=run.callbacks())
    lightning.Trainer(**ddp, **options).fit(ddp_work.Net(), ddp_work.Points())
"""
LOOP = """
import os, time, trainlab, torch
from datetime import timedelta
from torch.distributed import init_process_group
from torch.nn.parallel import DistributedDataParallel

init_process_group("gloo", timeout=timedelta(seconds=5))
with trainlab.Run("loop") as run:
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    if state := run.load():
        model.module.load_state_dict(state["model"])
    for step in range(run.step, 100_000):
        x = torch.randn(8, 1)
        loss = (model(x) - 2 * x).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        run.log({"train/loss": loss.item()}, step)
        if step % 20 == 19:
            run.save({"model": model.module.state_dict()})
"""


@pytest.fixture
def several(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Hosts]:
    with hosts(tmp_path, free_port()) as made:
        yield made


def script(several: Hosts, text: str) -> str:
    (several.folder / "mine.py").write_text(text)
    return "mine.py"


@pytest.mark.parametrize("text", [WHOLE, LIGHTNING], ids=["trainlab", "lightning"])
def test_two_hosts_record_one_run(text: str, several: Hosts) -> None:
    several.store()
    line = script(several, text)
    both = [several.host(line, nodes="2") for _ in range(2)]
    for each in both:
        out, _ = each.communicate(timeout=DEADLINE)
        assert each.returncode == 0, out
        assert "in 2 hosts" in out
    known = several.record()
    assert (known["status"], known["nodes"], known["resumes"]) == ("finished", "2", [])
    steps = several.steps()
    assert steps
    assert steps == sorted(set(steps))
    assert len(list(several.run.glob("events.out.*"))) == 1, "the first process alone writes"
    again = several.host(line, nodes="2")
    out, _ = again.communicate(timeout=DEADLINE)
    assert again.returncode == 2
    assert "is finished. Take another name." in out


@pytest.mark.parametrize(("text", "every"), [(ENDLESS, 10), (LOOP, 1)], ids=["trainlab", "loop"])
def test_a_lost_host_costs_nothing_but_the_steps_since_the_checkpoint(
    text: str, every: int, several: Hosts
) -> None:
    several.store()
    line = script(several, text)
    both = [several.host(line) for _ in range(2)]
    several.until_saved(3)
    for place in (0, 1):  # one of them is the first process
        seen = len(several.record()["resumes"])
        kill(both[place])
        assert several.until_resumed(seen)["step"] >= 20
        several.until_saved()
        seen = len(several.record()["resumes"])
        both[place] = several.host(line)
        several.until_resumed(seen)
        several.until_saved(2)
    for each in both:
        stopped(each)
    known = several.record()
    assert (known["status"], known["reason"]) == ("interrupted", "SIGTERM")
    gaps = {second - first for first, second in itertools.pairwise(several.steps())}
    assert gaps == {every}, "each step once, and none is missing"


def test_a_store_that_was_lost_and_is_started_again_costs_a_pause(several: Hosts) -> None:
    store = several.store()
    line = script(several, ENDLESS)
    both = [several.host(line) for _ in range(2)]
    several.until_saved(2)
    seen = len(several.record()["resumes"])
    kill(store)
    several.store()
    several.until_resumed(seen)
    several.until_saved(2)
    printed = [stopped(each) for each in both]
    assert any("was lost" in out for out in printed), printed
    assert several.record()["status"] == "interrupted"


def test_a_host_that_is_stopped_leaves_once_all_is_saved(several: Hosts) -> None:
    several.store()
    line = script(several, ENDLESS.replace('"20"', '"1000000"'))
    both = [several.host(line) for _ in range(2)]
    until(lambda: several.logged() > 50, "some steps of training", DEADLINE)
    seen = several.record()["resumes"]
    logged = several.logged()
    out = stopped(both[1])
    assert "this host: interrupted, SIGTERM" in out
    assert several.until_resumed(len(seen))["step"] > logged
    assert both[0].poll() is None


def test_a_process_that_fails_by_itself_is_not_started_again_and_again(several: Hosts) -> None:
    several.store()
    both = [several.host(script(several, FAULTY)) for _ in range(2)]
    for each in both:
        out, _ = each.communicate(timeout=DEADLINE)
        assert each.returncode == 1, out
        assert out.count("process 0 of") + out.count("process 1 of") < 4, out
    known = several.record()
    assert known["status"] == "failed"
    assert "ValueError: seven" in known["reason"]


NOTEBOOK = (
    "epochs = 2",
    "import os, ddp_work; from pathlib import Path\n"
    "run, trainer = ddp_work.train(Path('logs'), 1, epochs=epochs, num_workers=0)",
    "print('steps:', trainer.global_step, 'of process', os.environ['RANK'])",
)


def test_a_notebook_is_executed_on_each_host_and_kept_once(several: Hosts) -> None:
    several.store()
    cells = [nbformat.v4.new_code_cell(each) for each in NOTEBOOK]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), several.folder / "mine.ipynb")
    both = [several.host("mine.ipynb", "epochs=1", nodes="2") for _ in range(2)]
    printed = [each.communicate(timeout=DEADLINE)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], printed
    assert sorted("steps: 5 of process 1" in out for out in printed) == [False, True]
    kept = json.loads((several.run / "notebook.ipynb").read_text())
    assert kept["cells"][-1]["outputs"][0]["text"] == ["steps: 5 of process 0\n"]
    assert several.record()["status"] == "finished"


def test_connections_that_end_while_they_are_listed_do_not_end_the_fence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, hung_up = iter(range(4)), []

    def look(_: float) -> None:
        if next(looks, None) is None:
            raise SystemExit  # of a thread that has no other end

    def hang_up(known: set[str], port: int) -> None:
        hung_up.append(port)
        raise psutil.NoSuchProcess(1) if len(hung_up) % 2 else OSError

    monkeypatch.setattr(agent, "SILENT", -1.0)
    monkeypatch.setattr(agent.time, "sleep", look)
    monkeypatch.setattr(rendezvous, "answers", lambda _: False)
    monkeypatch.setattr(rendezvous, "hang_up", hang_up)
    with pytest.raises(SystemExit):
        agent._fence(rendezvous.Endpoint("127.0.0.1", 29400))
    assert hung_up == [29400] * 4
