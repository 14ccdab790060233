"""From words to a record: where weights stand, lists with commas, what is no flag, short help and whole."""

from __future__ import annotations

from typing import Any

import pytest

from simsiam import cli, protocols
from simsiam.commands import evaluate, reading
from simsiam.evaluation.classification.knn import Knn
from simsiam.protocols import PROTOCOLS
from simsiam.recipes import classification
from simsiam.recipes.scaled import Wanted

KNN = PROTOCOLS["knn"]


def line(*words: str, name: str = "knn") -> Any:
    protocol = PROTOCOLS[name]
    return evaluate._parse(name, protocol, list(words), protocol.recipe(None, Wanted()))


def knn(*words: str) -> Knn:
    return reading.read(Knn, list(words), prog="x", default=classification.knn(224))


def exits(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out + said.err


def test_weights_stand_before_or_after_the_flags() -> None:
    for words in (["random:resnet18", "--data", "cifar10"], ["--data", "cifar10", "random:resnet18"]):
        found = line(*words)
        assert (found.options.weights, found.data.data) == (("random:resnet18",), "cifar10")
    found = line("--temperature", "0.2", "a", "b", "--from", "c", "--from", "d")
    assert (found.options.weights, found.options.start) == (("a", "b"), ("c", "d"))
    assert found.settings.temperature == 0.2


def test_lists_of_numbers_are_parted_by_blanks_or_commas() -> None:
    for words in (["--k", "1", "3"], ["--k", "1,3"], ["--k=1,3"], ["--k", "1,", "3"]):
        assert knn(*words).k == (1, 3)
    found = line("a", "--lr-sweep", "0.01,0.03", "--lr", "3", name="detection-coco")
    assert (found.settings.lr_sweep, found.settings.lr) == ((0.01, 0.03), 3.0)
    with pytest.raises(SystemExit):
        knn("--k", "1,x")


def test_of_a_flag_given_twice_the_last_counts() -> None:
    assert knn("--batch-size", "4", "--batch-size=5").batch_size == 5


def test_what_a_recipe_is_called_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert knn().name == "knn_224px"
    for words in (["evaluate", "knn", "a", "--name", "b"], ["pretrain", "--about", "b", "--out", "o"]):
        code, said = exits(words, capsys)
        assert code == 2
        assert "Unrecognized" in said


@pytest.mark.parametrize("name", PROTOCOLS)
def test_only_machine_settings_that_are_read_are_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = exits(["evaluate", name, "--help-all"], capsys)
    flags = {word for word in said.split() if word.startswith("--")}
    for field in ("out", "device", "workers", "cache", "checkpoint_minutes", "channels_last", "compile"):
        assert (f"--{field.replace('_', '-')}" in flags) == (field in PROTOCOLS[name].machine), field
    assert not {"--views-engine", "--name", "--layout", "--benchmark"} & flags
    assert ("--size" in flags) == (PROTOCOLS[name].scale == "size")


def test_short_help_says_whose_values_it_shows_and_help_all_has_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    code, short = exits(["evaluate", "knn", "--recipe", "knn_monitor", "--help"], capsys)
    assert code == 0
    assert "of the recipe knn_monitor_224px" in short
    assert "simsiam evaluate knn --help-all" in short
    assert "--storage" not in short
    _, whole = exits(["evaluate", "knn", "--recipe", "knn_monitor", "--help-all"], capsys)
    assert "--storage" in whole
    assert "(default: 200)" in whole


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_recipe_of_a_protocol_has_the_same_flags(name: str) -> None:
    protocol = protocols.find(name)
    kinds = {type(protocol.recipe(recipe, Wanted(trained=side))) for recipe in protocol.recipes for side in (32, 224)}
    assert len(kinds) == 1, "the flags are read over the usual recipe before the one that is named is known"
