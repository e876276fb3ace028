"""Bundles are loaded, warm, all of them or none; and they answer."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import onnx_files
import served_bundles
from served_bundles import ITEMS, numbers, text_network, write
from trainlab import paths
from trainlab.errors import UserError
from trainlab.serving import bundle, engine
from trainlab.serving.engine import Engine, NotServed
from trainlab.serving.questions import NearestQuestion, SentimentQuestion

pytest.importorskip("onnx")

HALF = '"\\ud800"'  # of a surrogate pair: JSON can hold it, and UTF-8 cannot


def items(**changes: object) -> bytes:
    return json.dumps(ITEMS | changes).encode()


def nearest(title: str, k: int = 10, **changes: bytes) -> list[engine.Item]:
    name = write("nearest", "news", changes)
    return engine.load([name]).runners["nearest"].answer(NearestQuestion(title=title, k=k)).items


def test_the_nearest_are_told_with_distance_category_and_link() -> None:
    first, second, *others = nearest("rain")
    assert (first.rank, first.title, first.category, first.subcategory) == (1, "Storm", "weather", "storms")
    assert (second.title, second.url) == ("Rain storm", "https://a.example/rain")
    assert second.distance == pytest.approx(np.linalg.norm([0, 0, 0.5]))
    distances = [each.distance for each in (first, second, *others)]
    assert distances == sorted(distances)
    assert [each.rank for each in others] == [3, 4]


def test_a_title_that_is_there_itself_is_not_among_its_nearest() -> None:
    assert [each.title for each in nearest("  STORM ", 2)] == ["Rain storm", "Cup"]


def test_no_more_are_told_than_there_are_or_are_asked_for() -> None:
    assert len(nearest("rain", 100)) == 4
    shutil.rmtree(paths.models())
    assert len(nearest("rain", 1)) == 1


def test_only_addresses_of_the_web_become_links() -> None:
    links = {each.title: each.url for each in nearest("rain")}
    assert links == {"Rain storm": "https://a.example/rain", "Storm": "", "Team <b>cup</b>": "", "Cup": ""}


def test_a_text_of_words_that_the_network_knows_gets_their_sentiment() -> None:
    runner = engine.load([write("sentiment", "mood")]).runners["sentiment"]
    good, bad, neither = (runner.answer(SentimentQuestion(text=text)) for text in ("good", "bad bad", "rain"))
    assert (good.label, round(good.positive, 3)) == ("positive", 0.953)
    assert (bad.label, round(bad.positive, 3)) == ("negative", 0.002)
    assert (neither.label, neither.positive) == ("positive", 0.5)


def test_a_picture_of_any_size_gets_a_caption() -> None:
    runner = engine.load([write("caption", "eyes")]).runners["caption"]
    assert [runner.answer(Image.new("RGB", size)).caption for size in ((1, 1), (300, 7))] == [
        "a grey field"
    ] * 2


def test_what_no_bundle_can_do_is_said() -> None:
    loaded = engine.load([write("sentiment", "mood")])
    with pytest.raises(
        NotServed, match=r"No bundle of the kind nearest is served here\. Served: sentiment\."
    ):
        loaded.runner("nearest")


def test_two_bundles_of_a_kind_are_refused() -> None:
    names = [write("sentiment", "mood"), write("sentiment", "other", {"card.json": b"{}"})]
    with pytest.raises(bundle.BundleError, match="are both of the kind sentiment"):
        engine.load(names)


def test_a_module_has_no_page() -> None:
    folder = paths.models() / "mine-1"
    folder.mkdir(parents=True)
    (folder / "card.json").write_text("{}")
    bundle.trust(bundle.seal(folder, "module"), folder.name)
    with pytest.raises(bundle.BundleError, match="of the kind module, for which there is no page"):
        engine.load([folder.name])


def test_a_bundle_from_elsewhere_is_refused_until_it_is_trusted() -> None:
    name = write("sentiment", "mood")
    (paths.models() / bundle.TRUSTED).rename(paths.models() / "kept")
    with pytest.raises(bundle.BundleError, match="was not exported here"):
        engine.load([name])
    (paths.models() / "kept").rename(paths.models() / bundle.TRUSTED)
    assert engine.load([name]).runners


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("nearest", {"items.npy": numbers(np.zeros((3, 3), np.float16))}, "expected title, category"),
        ("nearest", {"items.npy": numbers(np.zeros((0, 3), np.float16))}, "expected title, category"),
        ("nearest", {"items.npy": numbers(np.full((4, 3), np.nan, np.float16))}, "some of its numbers"),
        ("nearest", {"items.npy": numbers(np.zeros((4, 5), np.float16))}, "its network can't answer"),
        ("nearest", {"items.json": b"[]"}, "expected title, category"),
        ("nearest", {"items.json": items(title=["a", "b", "c", 4])}, "expected title, category"),
        ("nearest", {"items.json": items(url=["a"])}, "expected title, category"),
        ("nearest", {"items.json": items().replace(b'"Storm"', HALF.encode())}, "expected title, category"),
        ("nearest", {"card.json": b'{"run": %s}' % HALF.encode()}, "card.json"),
        ("nearest", {"card.json": b'{"loss": 1e999}'}, "card.json"),
        ("nearest", {"card.json": b"[]"}, "expected what is known of the run"),
        ("nearest", {"text.onnx": b"no network"}, "no ONNX file"),
        (
            "nearest",
            {"text.onnx": onnx_files.outside(b"/etc/passwd")},
            "in another file",
        ),
        ("nearest", {"text.onnx": onnx_files.identity()}, "its network can't answer"),
        ("nearest", {"tokenizer.json": b"{}"}, "tokenizer.json can't be used"),
        ("sentiment", {"settings.json": b'{"texts": 2, "run": "rm -rf"}'}, "settings.json"),
        ("caption", {"words.json": b'["a"]'}, "expected a list of words"),
        (
            "caption",
            {"words.json": b'["a", "b", "c", %s]' % HALF.encode()},
            "a word that is no text",
        ),
    ],
)
def test_a_bundle_that_means_harm_or_cannot_answer_is_refused_at_its_load(
    kind: str, changes: dict[str, bytes], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        engine.load([write(kind, "theirs", changes)])


def test_a_network_that_gives_other_numbers_or_none_is_refused_at_its_load() -> None:
    table = np.zeros((len(served_bundles.WORDS), 3))
    for other in (text_network(table, inputs=("words", "mask")), text_network(table + np.nan)):
        with pytest.raises(bundle.BundleError, match="its network can't answer"):
            engine.load([write("nearest", "theirs", {"text.onnx": other})])
        shutil.rmtree(paths.models())


def test_a_load_that_is_refused_leaves_what_was_served() -> None:
    served_by = Engine()
    served_bundles.choose(paths.models(), write("sentiment", "mood"))
    served_by.load()
    before = served_by.now
    served_bundles.choose(paths.models(), "gone-1")
    with pytest.raises(UserError, match="is no bundle"):
        served_by.load()
    assert served_by.now is before
    assert "gone-1 is no bundle" in served_by.refused
    assert served_by.loads == 2
    served_bundles.choose(paths.models(), write("sentiment", "other", {"card.json": b"{}"}))
    served_by.load()
    assert (served_by.refused, served_by.loads) == ("", 3)
    assert served_by.now.names["sentiment"].startswith("other-")


def test_a_flipped_bit_is_found_at_the_next_load() -> None:
    served_by, name = Engine(), write("sentiment", "mood")
    served_bundles.choose(paths.models(), name)
    served_by.load()
    network = paths.models() / name / "text.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    with pytest.raises(UserError, match="is damaged or was replaced"):
        served_by.load()
    assert served_by.now.runner("sentiment").answer(SentimentQuestion(text="good")).label == "positive"
