import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from darts_segmentation.training.hyperparameters import Distribution, read_hyperparameters, with_values
from darts_utils.errors import ConfigError

from .training_data import options_for


def read(folder: Path, text: str) -> dict[str, Distribution]:
    file = folder / "search.toml"
    file.write_text(f"[hyperparameters]\n{text}\n")
    return read_hyperparameters(file)


def drawn(distribution: Distribution, count: int = 200) -> list[Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [distribution.suggest(study.ask(), "x") for _ in range(count)]


def test_short_forms_stand_for_distributions(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "learning-rate = {low = 1e-4, high = 1e-2}\nbatch-size = {low = 2, high = 9}\n"
        'schedule = ["cosine", "constant"]\n'
        "clip = 2.0\nlosses.focal = {low = 0.0, high = 1.0}",
    )
    assert {name: each.kind for name, each in found.items()} == {
        "learning_rate": "uniform", "batch_size": "intuniform", "schedule": "choice", "clip": "constant",
        "losses.focal": "uniform",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["uniform", "loguniform", "reversed_loguniform"])
def test_draws_stay_within_their_limits_and_reach_both_ends(kind: Any) -> None:
    values = drawn(Distribution(kind=kind, low=0.9, high=0.999))
    assert min(values) >= 0.9
    assert max(values) <= 0.999 + 1e-12
    assert min(values) < 0.91
    assert max(values) > 0.99


def test_reversed_loguniform_draws_as_many_near_one_as_further_off() -> None:
    values = drawn(Distribution(kind="reversed_loguniform", low=0.9, high=0.999), 2000)
    # The middle of the logarithms of 1 - x, from 0.1 to 0.001, is 0.01.
    assert 0.45 < sum(value > 0.99 for value in values) / len(values) < 0.55


def test_whole_numbers_and_choices_are_drawn_all() -> None:
    assert set(drawn(Distribution(kind="intuniform", low=2, high=5))) == {2, 3, 4, 5}
    choices = ([1, 2], {"a": 1}, "x")
    assert [value for value in choices if value in drawn(Distribution(kind="choice", choices=choices), 50)] == [
        *choices
    ]


def test_values_replace_options_also_within_tables(tmp_path: Path) -> None:
    options = options_for(tmp_path, losses={"bce": 1.0, "focal": 2.0})
    changed = with_values(options, {"learning_rate": 0.1, "losses.focal": 0.5, "loss_arguments.focal.gamma": 3.0})
    assert changed.learning_rate == 0.1
    assert changed.losses == {"bce": 1.0, "focal": 0.5}
    assert changed.loss_arguments == {"focal": {"gamma": 3.0}}
    assert options.losses == {"bce": 1.0, "focal": 2.0}
    assert options.loss_arguments == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learning-rat = 1.0", "learning-rat is no option that can be tuned; did you mean learning_rate?"),
        ("datasets = ['a']", "datasets is no option that can be tuned.*datasets, start_from.* stay the same"),
        ("clip = {low = 2, high = 1}", "low < high, got 2 and 1"),
        ("clip = {low = 2}", "needs the numbers low and high"),
        ("clip = {distribution = 'normal', low = 1, high = 2}", "distribution must be one of"),
        ("clip = {distribution = 'loguniform', low = 0.0, high = 2}", "low above 0"),
        ("ema = {distribution = 'reversed_loguniform', low = 0.5, high = 1.0}", "high below 1"),
        ("epochs = {distribution = 'intuniform', low = 0.5, high = 3}", "whole numbers"),
        ("epochs = []", "choice needs choices"),
        ("clip = {low = nan, high = 3}", "needs the numbers"),
        ("", "or an empty one"),
    ],
)
def test_what_cannot_be_drawn_from_is_refused_by_name(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read(tmp_path, text)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-file\.toml cannot be read"):
        read_hyperparameters(tmp_path / "no-file.toml")
    with pytest.raises(ConfigError, match="is no TOML"):
        read(tmp_path, "clip = [")
    assert math.isclose(read(tmp_path, "clip = 1e-3")["clip"].choices[0], 1e-3)
