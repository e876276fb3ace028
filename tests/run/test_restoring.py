"""Checkpoints that somebody else made: no code of theirs runs, and no more memory is taken than they fill."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoConfig

import tiny_models
from experiments.attention.config import AttentionConfig
from experiments.attention.data import backbone
from experiments.captions import train
from experiments.news import recommend
from experiments.news.config import NewsConfig
from experiments.news.model import NewsModel
from experiments.sentiment import model as sentiment
from runs_folder import make
from trainlab import hub
from trainlab.errors import UserError
from trainlab.hub import Source
from trainlab.run import checkpoint, restoring
from trainlab.run.checkpoint import CheckpointError
from trainlab.run.restoring import restore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CODE = {"AutoModel": "evil/repo--modeling.Evil", "AutoConfig": "evil/repo--modeling.Evil"}
KERNEL = "kernels-community/evil"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.bert(tmp_path_factory.mktemp("bert"), ["rain", "sun"])


@pytest.fixture(scope="module")
def saved(bert: Path) -> dict[str, Any]:
    """What a checkpoint of the news experiment holds."""
    model = NewsModel.pretrained(NewsConfig.parse({"backbone": str(bert)}))
    return {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks whether to run foreign code is told yes: a test that comes to that fails."""

    def asked(*_: Any) -> str:
        pytest.fail("asked whether to run code from elsewhere")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr("transformers.models.auto.auto_factory.get_class_from_dynamic_module", asked)


@pytest.fixture
def keep(saved: dict[str, Any], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """A checkpoint, changed by a hand of somebody else."""

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        changed = copy.deepcopy(saved)
        change(changed)
        path = tmp_path / "best.ckpt"
        checkpoint.save(changed, path)
        return path

    return write


def architecture(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["hyper_parameters"]["backbone_config"].update(settings)


def hyper(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda saved: saved["hyper_parameters"].update(settings)


@pytest.mark.parametrize(
    "foreign",
    [
        {"auto_map": CODE},
        {"attn_implementation": KERNEL},
        {"_attn_implementation": KERNEL},
        {"experts_implementation": KERNEL},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"num_labels": 9_999_999},
    ],
    ids=str,
)
def test_what_names_code_or_weights_elsewhere_is_dropped_and_the_network_loads(keep, foreign):
    path = keep(lambda saved: (architecture(**foreign)(saved), hyper(fast=False)(saved)))
    config = restore(NewsModel, path).backbone.config
    assert not hasattr(config, "auto_map")
    assert config._attn_implementation in ("sdpa", "eager")
    assert config.num_labels == 2


def test_a_network_that_is_known_by_its_code_alone_is_refused_and_nobody_is_asked(keep):
    path = keep(hyper(backbone_config={"model_type": "siglip_text_model", "auto_map": CODE}, fast=False))
    with pytest.raises(CheckpointError, match="no network that can be built"):
        restore(NewsModel, path)


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (architecture(hidden_size=384 * 4096, num_attention_heads=2), "ask for"),
        (architecture(intermediate_size=9_000_000), "ask for"),
        (architecture(vocab_size=10**12), "setting of 1e\\+12"),
        (architecture(max_position_embeddings=10**12), "setting of 1e\\+12"),
        (architecture(num_hidden_layers=10**6), "ask for"),
        (architecture(num_labels=10**9), "setting of 1e\\+09"),
        (architecture(model_type="nosuch"), "nosuch"),
        (architecture(id2label=nested()), "lists in lists"),
        (hyper(zzz=1), "zzz"),
        (hyper(_instantiator="os.system"), "_instantiator"),
        (hyper(tokenizer='{"version":"1.0"'), "delimiter"),
        (hyper(text="nosuch"), "nosuch"),
        (hyper(loss="nosuch"), "nosuch"),
        (lambda saved: saved.update(hyper_parameters=[1]), "mapping"),
        (lambda saved: saved.pop("hyper_parameters"), "hyper_parameters"),
        (lambda saved: saved.pop("state_dict"), "state_dict"),
        (lambda saved: saved.update(state_dict=[1]), "list"),
        (lambda saved: saved["state_dict"].popitem(), "Missing key"),
    ],
)
def test_settings_that_do_not_belong_to_the_weights_are_refused_with_a_sentence(keep, change, said):
    with pytest.raises(CheckpointError, match=said) as error:
        restore(NewsModel, keep(change))
    assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    "claim",
    [
        lambda shape: torch.zeros(1).expand(shape),
        lambda shape: torch.empty(shape, device="meta"),
    ],
    ids=["one number", "no number"],
)
def test_a_tensor_of_few_bytes_that_claims_to_be_huge_does_not_take_the_memory(keep, claim):
    wide = 40_000

    def change(saved: dict[str, Any]) -> None:
        architecture(intermediate_size=wide)(saved)
        for name, tensor in saved["state_dict"].items():
            shape = [wide if size == 64 else size for size in tensor.shape]
            saved["state_dict"][name] = claim(shape)

    with pytest.raises(CheckpointError, match="no network that can be built"):
        restore(NewsModel, keep(change))


def test_a_sentiment_runs_checkpoint_is_read_as_carefully(bert, saved, tmp_path, monkeypatch):
    path = tmp_path / "best.ckpt"
    tokenizer = saved["hyper_parameters"]["tokenizer"]
    config = AutoConfig.from_pretrained(bert).to_dict()
    network = sentiment.hub.load(sentiment.AutoModelForSequenceClassification, Source(str(bert), local=True))
    monkeypatch.setattr(restoring, "best_of", lambda *_: path)
    monkeypatch.setattr(restoring, "trained", lambda *_: tmp_path)

    def load(**settings: Any) -> sentiment.Classifier:
        known = {"config": config | settings, "tokenizer": tokenizer}
        checkpoint.save({"hyper_parameters": known, "state_dict": network.state_dict()}, path)
        return sentiment.load("some")

    loaded = load(auto_map=CODE, attn_implementation=KERNEL)
    assert loaded.model.config._attn_implementation == "sdpa"
    for huge in ({"vocab_size": 10**12}, {"num_hidden_layers": 10**6}, {"hidden_size": 10**6}):
        with pytest.raises(CheckpointError, match="no network that can be built"):
            load(**huge)
    tokenizer = "{}"
    with pytest.raises(CheckpointError, match="no network that can be built"):
        load()


@pytest.mark.parametrize(
    "settings", [{"num_hidden_layers": 10**7}, {"vocab_size": 10**12}, {"intermediate_size": 10**9}], ids=str
)
def test_a_model_folder_whose_settings_ask_for_more_than_its_files_is_refused_at_once(tmp_path, settings):
    tiny_models.bert(tmp_path, ["rain", "sun"])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(UserError, match="its settings ask for"):
        NewsModel.pretrained(NewsConfig.parse({"backbone": str(tmp_path)}))


def tokenizer(**settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(saved: dict[str, Any]) -> None:
        known = saved["hyper_parameters"]
        known["tokenizer"] = json.dumps(json.loads(known["tokenizer"]) | settings)

    return change


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
PADDED = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 60}}, "a thousand times"),
        ({"normalizer": DOUBLING | {"content": "x" * 2000}}, "a thousand times"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}}, "a thousand times"),
        ({"padding": PADDED | {"strategy": {"Fixed": 10**9}}}, "as long as no network reads"),
    ],
)
def test_a_tokenizer_that_makes_any_text_huge_is_refused(keep, settings, said):
    with pytest.raises(CheckpointError, match=said):
        restore(NewsModel, keep(tokenizer(**settings)))


def test_a_tokenizer_that_replaces_as_published_ones_do_is_taken(keep):
    steps = [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}, DOUBLING]
    path = keep(tokenizer(normalizer={"type": "Sequence", "normalizers": steps}))
    assert restore(NewsModel, path).tokenizer.normalizer is not None


@pytest.mark.parametrize("what", ["load_tokenizer", "layer_count"])
def test_a_model_folder_with_code_of_its_own_is_refused_and_nobody_is_asked(tmp_path, what):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": CODE}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["modeling.Evil", None]}})
    )
    (tmp_path / "modeling.py").write_text("raise SystemExit('executed')")
    source = Source(str(tmp_path), local=True)
    with pytest.raises(UserError, match="program code of its own"):
        hub.load_tokenizer(source, 8) if what == "load_tokenizer" else hub.layer_count(source)


def test_a_model_folder_whose_settings_ask_for_other_weights_is_refused_with_a_sentence(tmp_path):
    tiny_models.bert(tmp_path, ["rain", "sun"])
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": 10**6}))
    with pytest.raises(UserError, match=r"can't be loaded|its settings ask for"):
        NewsModel.pretrained(NewsConfig.parse({"backbone": str(tmp_path)}))


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of three experiments, the newest of them without weights."""
    monkeypatch.setenv("TRAINLAB_LOGS", str(tmp_path))
    for number, label in enumerate(["compare/newest", "news/young", "news/old", "sentiment/oldest"]):
        folder = make(tmp_path, label, minutes_ago=number)
        if label.endswith(("old", "oldest")):
            checkpoint.save({}, folder / restoring.BEST)
    return tmp_path


@pytest.mark.parametrize(("experiment", "run"), [("news", "old"), ("sentiment", "oldest")])
def test_last_is_the_newest_run_of_the_experiment_that_has_weights(logs, experiment, run):
    assert restoring.trained("last", experiment) == logs / experiment / run
    assert restoring.trained("young", experiment).name == "young"


@pytest.mark.parametrize(
    ("experiment", "call"),
    [
        ("news", lambda: recommend.recommend("last", "a title")),
        ("sentiment", lambda: sentiment.predict("last", "a text")),
        ("captions", lambda: train.caption("last", "picture.png")),
        ("sentiment", lambda: backbone(AttentionConfig(run="last"))),
    ],
)
def test_where_no_run_can_do_it_last_says_so_in_a_sentence(logs, experiment, call):
    for best in logs.glob("*/*/checkpoints/best.ckpt"):
        best.unlink()
    with pytest.raises(UserError) as error:
        call()
    assert f"No run of {experiment} with checkpoints/best.ckpt in" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_run_of_another_experiment_is_refused_without_a_list_of_its_settings(logs):
    names = {f"setting{number}": number for number in range(40)}
    folder = make(logs, "checks/settings", config=names)
    with pytest.raises(UserError, match="no run of the news experiment but of checks") as error:
        recommend.recommend(folder, "a title")
    assert len(str(error.value)) < 500
