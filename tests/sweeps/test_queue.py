"""Trials as a queue: each is taken by one, ends once, and comes back when its owner is lost."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter

import pytest

import postgresql
import takers
from trainlab.errors import UserError
from trainlab.sweeps import database, definition
from trainlab.sweeps.faults import QueueError
from trainlab.sweeps.queue import Owner, Queue

ME = Owner("host", 1, 1.0, "0", "mine")
OTHER = Owner("host", 2, 1.0, "0", "other's")
LISTS = {"margin": [1, 3, 5], "mining": [True, 1]}
RANGES = {"rate": {"low": 1e-5, "high": 1e-3, "log": True}, "layers": {"low": 1, "high": 9}, "one": ["x"]}
PROCESSES, TRIALS = 4, 150


@pytest.fixture(scope="module")
def server(free_port):
    if not postgresql.programs():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = postgresql.Server(free_port())
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def at(request, monkeypatch):
    """The database of a sweep: a file beside it, or a server."""
    if request.param == "sqlite":
        return None
    monkeypatch.setenv("TRAINLAB_HEAD_PASSWORD", postgresql.PASSWORD)
    return request.getfixturevalue("server").at


@pytest.fixture
def ordered(tmp_path, request):
    """Return a function that makes a sweep's folder and returns its definition."""
    program = tmp_path / "train.py"
    program.write_text("print(1)\n")

    def made(**fields):
        method = fields.get("method", "grid")
        known = {"name": f"of-{abs(hash(request.node.name)):x}", "program": str(program), "mode": "max"}
        known |= {"method": method, "trials": 20, "space": LISTS if method == "grid" else RANGES}
        known |= {"goal": "val/score"} | fields
        definition.create(definition.Definition(**known), tmp_path / "logs")
        return definition.load(known["name"], tmp_path / "logs")

    return made


@pytest.fixture
def queue_of(tmp_path, ordered, at, request):
    """Return a function that makes a sweep with its queue, in either database."""

    def made(**fields):
        queue = Queue.create(ordered(**{"at": at} | fields), logs=tmp_path / "logs")
        request.addfinalizer(queue.close)
        return queue

    return made


def test_a_grid_waits_whole_with_its_settings(queue_of):
    trials = queue_of().trials()
    settings = [trial.settings for trial in trials]
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"waiting"}
    assert settings[:2] == [{"margin": 1, "mining": True}, {"margin": 1, "mining": 1}]
    assert [type(each["mining"]) for each in settings[:2]] == [bool, int]


def test_fewer_trials_than_the_grid_has_are_its_first(queue_of):
    queue = queue_of(trials=2)
    assert [trial.settings["margin"] for trial in queue.trials()] == [1, 1]
    queue.add(2)
    assert [trial.settings["margin"] for trial in queue.trials()] == [1, 1, 3, 3]
    queue.add(20)
    with pytest.raises(UserError, match="6 combinations, and each is a trial already"):
        queue.add(1)
    assert len(queue.trials()) == 6


def test_settings_are_sampled_when_a_trial_is_taken_and_lie_within_their_ranges(queue_of):
    queue = queue_of(method="tpe")
    assert {len(trial.settings) for trial in queue.trials()} == {0}
    while taken := queue.take(ME):
        assert taken.state == "running"
        assert 1e-5 <= taken.settings["rate"] <= 1e-3
        assert taken.settings["layers"] in range(1, 10)
        assert type(taken.settings["layers"]) is int
        assert taken.settings["one"] == "x"
        queue.finish(taken.number, ME, "finished", -abs(taken.settings["layers"] - 7))
    layers = [trial.settings["layers"] for trial in queue.trials()]
    near = [abs(each - 7) for each in layers]
    assert sum(near[10:]) < sum(near[:10])  # TPE, from the eleventh on, learns


def test_the_same_seed_draws_the_same_settings_whoever_takes_them(queue_of):
    first = queue_of(name="first", method="random", seed=3)
    second = queue_of(name="second", method="random", seed=3)
    ours = [first.take(each).settings for each in (ME, OTHER, ME)]
    assert ours == [second.take(each).settings for each in (OTHER, OTHER, ME)]
    assert len({each["rate"] for each in ours}) == 3


def test_a_lost_trial_comes_back_with_its_number_settings_and_runs(queue_of):
    queue = queue_of(method="tpe")
    taken = queue.take(ME)
    assert queue.started(taken.number, ME, "news/margins-000")
    assert queue.requeue(taken.number, ME, "host is gone")
    waiting = queue.trials()[0]
    assert (waiting.state, waiting.owner, waiting.reason) == ("waiting", None, "host is gone")
    again = queue.take(OTHER)
    assert (again.number, again.settings, again.runs) == (0, taken.settings, ("news/margins-000",))
    assert (again.owner, again.attempts) == (OTHER, 2)


def test_a_beat_changes_and_is_the_owner_s_alone(queue_of):
    queue = queue_of()
    before = queue.take(ME)
    assert queue.beat(0, ME)
    assert queue.running()[0].beat != before.beat
    assert not queue.beat(0, OTHER)
    assert not queue.beat(1, ME)
    assert not queue.beat(999, ME)


def test_whoever_lost_a_trial_can_not_touch_it(queue_of):
    queue = queue_of()
    queue.take(ME)
    assert queue.adopt(0, ME, OTHER)
    assert not queue.adopt(0, ME, ME)
    assert not queue.beat(0, ME)
    assert not queue.started(0, ME, "news/late")
    assert not queue.requeue(0, ME, "late")
    assert not queue.finish(0, ME, "finished", 9.0)
    trial = queue.trials()[0]
    assert (trial.state, trial.owner, trial.runs, trial.value) == ("running", OTHER, (), None)


def test_an_end_told_twice_or_late_is_no_error_and_changes_nothing(queue_of):
    queue = queue_of()
    queue.take(ME)
    assert queue.finish(0, ME, "finished", 1.0)
    assert queue.finish(0, ME, "failed", reason="told twice")
    assert not queue.beat(0, ME)
    assert not queue.requeue(0, ME, "too late")
    queue.report(0, 5, 1.0)
    assert not queue.should_prune(0)
    trial = queue.trials()[0]
    assert (trial.state, trial.value, trial.reason) == ("finished", 1.0, "")


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_trial_that_finished_without_a_number_is_failed(queue_of, value):
    queue = queue_of()
    queue.take(ME)
    assert queue.finish(0, ME, "finished", value)
    trial = queue.trials()[0]
    assert (trial.state, trial.value, trial.reason) == ("failed", None, "no value of val/score")


def test_what_a_pruned_trial_came_to_is_its_last_report(queue_of):
    queue = queue_of()
    queue.take(ME)
    for ordinal, value in enumerate([1.0, 2.0, math.nan, -math.inf]):
        queue.report(0, ordinal, value)
    queue.report(0, 1, 3.0)  # once more, after a resume
    assert queue.finish(0, ME, "pruned", reason="pruned at validation 3")
    trial = queue.trials()[0]
    assert (trial.state, trial.value, trial.reason) == ("pruned", 3.0, "pruned at validation 3")


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_pruner_ends_what_is_worse_than_the_others(queue_of, pruner):
    queue = queue_of(method="random", prune=pruner)
    pruned = {}
    for _ in range(14):
        taken = queue.take(ME)
        bad = taken.number >= 8
        for ordinal in range(9):
            queue.report(taken.number, ordinal, -5.0 if bad else taken.number + ordinal)
            if queue.should_prune(taken.number):
                pruned[taken.number] = ordinal
                break
        queue.finish(taken.number, ME, "pruned" if taken.number in pruned else "finished", 0.0)
    assert pruned
    assert min(pruned) >= 8


def test_four_processes_take_each_of_150_trials_once(queue_of, tmp_path):
    made = queue_of(trials=TRIALS, space={"margin": list(range(TRIALS))})
    each = [(made.definition, tmp_path / "logs", f"process {number}") for number in range(PROCESSES)]
    counts = Counter(number for taken in takers.at_once(takers.take_all, each) for number in taken)
    assert counts == dict.fromkeys(range(TRIALS), 1)
    assert {trial.attempts for trial in made.trials()} == {1}


def test_of_four_that_want_to_take_over_one_gets_it(queue_of, tmp_path):
    made = queue_of(space={"margin": list(range(20))})
    while made.take(ME):
        pass
    each = [(made.definition, tmp_path / "logs", f"process {number}", ME) for number in range(PROCESSES)]
    found = takers.at_once(takers.take_over, each)
    assert sorted(number for adopted, _ in found for number in adopted) == list(range(10))
    assert sorted(number for _, requeued in found for number in requeued) == list(range(10, 20))
    winners = {number: f"process {place}" for place, (adopted, _) in enumerate(found) for number in adopted}
    assert {trial.number: trial.owner.token for trial in made.running()} == winners


def test_a_sweep_of_a_name_that_the_database_has_is_refused(queue_of, ordered, tmp_path, at):
    made = queue_of(at=at)
    made.take(ME)
    with pytest.raises(UserError, match=f"There is a sweep '{made.definition.name}' in .* already"):
        Queue.create(made.definition, logs=tmp_path / "logs")
    assert made.running()[0].owner == ME


def test_a_study_that_is_not_there_names_the_way_to_make_it(ordered, tmp_path, at):
    known = ordered(at=at)
    with pytest.raises(QueueError, match=f"trainlab sweep rebuild {known.name}") as refused:
        Queue.open(known, logs=tmp_path / "logs")
    assert not refused.value.passing
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("damage", [b"", b"no database" * 999, None])
def test_a_damaged_study_is_said_in_one_sentence(ordered, tmp_path, damage):
    known = ordered()
    made = Queue.create(known, logs=tmp_path / "logs")
    made.close()
    path = tmp_path / "logs/.sweeps" / known.name / database.FILE
    if damage is None:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + b"\xff" * (len(content) // 2))
    else:
        path.write_bytes(damage)
    with pytest.raises(QueueError, match="trainlab sweep rebuild") as refused:
        Queue.open(known, logs=tmp_path / "logs").trials()
    assert not refused.value.passing


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trial_user_attributes SET value_json = '[1'",
        "UPDATE trials SET state = 'STOLEN'",
        """UPDATE trial_user_attributes SET value_json = '{"attempts": -1}'""",
        "UPDATE trial_params SET param_value = 99",
        "DROP TABLE trial_params",
    ],
)
def test_tables_that_somebody_has_written_into_are_refused_with_a_sentence(ordered, tmp_path, statement):
    import sqlite3

    known = ordered()
    made = Queue.create(known, logs=tmp_path / "logs")
    connection = sqlite3.connect(tmp_path / "logs/.sweeps" / known.name / database.FILE)
    connection.execute(statement)
    connection.commit()
    with pytest.raises(QueueError, match="made anew: trainlab sweep rebuild") as refused:
        made.trials()
    assert not refused.value.passing


def test_a_link_in_the_database_s_place_is_not_followed(ordered, tmp_path):
    known = ordered()
    Queue.create(known, logs=tmp_path / "logs").close()
    path = tmp_path / "logs/.sweeps" / known.name / database.FILE
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QueueError, match="a link"):
        Queue.open(known, logs=tmp_path / "logs")


def test_a_database_that_another_process_holds_is_worth_asking_again(ordered, tmp_path, monkeypatch):
    known = ordered()
    made = Queue.create(known, logs=tmp_path / "logs")
    monkeypatch.setattr(database, "PATIENCE", 0.1)
    lock = tmp_path / "logs/.sweeps" / known.name / database.LOCK
    with database.locked(lock), pytest.raises(QueueError, match="another process has held") as refused:
        made.take(ME)
    assert refused.value.passing
    assert made.take(ME).number == 0


def test_neither_torch_nor_pandas_is_imported_and_optuna_says_nothing(ordered, tmp_path):
    known = ordered(method="tpe", trials=2)
    code = (
        "import sys; from trainlab.sweeps import definition, queue\n"
        "assert 'optuna' not in sys.modules\n"
        f"known = definition.load({known.name!r}, {str(tmp_path / 'logs')!r})\n"
        f"made = queue.Queue.create(known, logs={str(tmp_path / 'logs')!r})\n"
        "made.take(queue.Owner('h', 1, 1.0, '0', 't'))\n"
        "print([each for each in ('torch', 'pandas', 'transformers') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
