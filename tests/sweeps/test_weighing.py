"""How much each setting of a sweep matters, and what sets the best trials apart."""

from __future__ import annotations

from random import Random

from swept import STEER
from trainlab.sweeps import weighing


def told(count, mode="min"):
    random = Random(0)
    trials = []
    for _ in range(count):
        rate, seed = random.random(), random.randrange(5)
        trials.append({"settings": {"rate": rate, "seed": seed, STEER: STEER}, "value": rate})
    return {"goal": "val/loss", "mode": mode, "best": 5, "trials": trials}


def test_the_setting_that_decides_matters_most():
    text = weighing.weigh(told(40))
    assert "What sets the best 5 apart from the other 35" in text
    shares = text.split("How much each setting matters")[1].splitlines()[2:]
    assert [line.split()[0] for line in shares] == ["rate", "seed"]
    assert float(shares[0].split()[1]) > 0.6
    assert "\x1b" not in text


def test_the_best_are_those_that_the_direction_says():
    lowest, highest = (weighing.weigh(told(15, mode)).split("rate")[1].split()[0] for mode in ("min", "max"))
    assert float(lowest) + 0.4 < float(highest)
