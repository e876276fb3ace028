"""A run's folder is named after what sets it apart."""

from __future__ import annotations

from trainlab.run import naming

LONG = {"backbone": "distilbert-base-uncased", "data": "/home/me/reviews.csv", "learning_rate": 5e-5}
MORE = {"max_tokens": 512, "warmup_steps": 100, "margin": 2.5, "seed": 0}


def test_a_short_name_has_every_change_in_its_order():
    assert naming.of_changes({"margin": 5.0, "seed": 3}) == "margin5-seed3"
    assert naming.of_changes({}) == ""
    assert naming.of_changes({"x": -0.5, "path": "/a/b/news.tsv"}) == "x-0.5-path-a-b-news.tsv"


def test_twelve_runs_of_a_series_have_twelve_names_with_seed_and_last_change_in_them(tmp_path):
    settings = [LONG | MORE | {"margin": margin, "seed": seed} for margin in (1.5, 2.0) for seed in range(6)]
    names = [naming.of_changes(each) for each in settings]
    assert len(set(names)) == 12
    for each, name in zip(settings, names, strict=True):
        assert f"margin{each['margin']:g}-seed{each['seed']}" in name
        assert naming.new_folder(tmp_path, "news", name).name.endswith(f"-{name}")


def test_of_a_path_that_does_not_fit_the_file_s_name_stays():
    assert naming.of_changes({"data": f"/{'deep/' * 12}reviews.csv"}).startswith("datareviews.csv-")


def test_the_seed_is_in_the_name_wherever_it_was_given():
    names = {naming.of_changes({"seed": seed} | LONG | MORE | {"seed": seed}) for seed in range(12)}
    assert len(names) == 12
    assert all(name.startswith("seed") for name in names)


def test_what_does_not_fit_still_tells_runs_apart():
    assert naming.of_changes({"data": "a" * 99}) != naming.of_changes({"data": "a" * 98})
    first, second = ({f"k{n}": "v" * 20 for n in range(9)} | {"k0": each} for each in "ab")
    assert naming.of_changes(first) != naming.of_changes(second)
    assert naming.of_changes({"rate": 0.12345678}) != naming.of_changes({"rate": 0.12345679})


def test_a_long_name_that_was_given_keeps_its_end(tmp_path):
    folders = [naming.new_folder(tmp_path, "news", f"{'the wide one ' * 9}seed {n}") for n in (1, 2)]
    assert folders[0].name[:-5].endswith("wide-one-seed-1")
    assert folders[1].name[:-5].endswith("wide-one-seed-2")
    assert all(len(folder.name.encode()) < 256 for folder in folders)
    assert naming.new_folder(tmp_path, "news", "lr-.5").name.endswith("-lr-.5")
