"""params.yaml is refused or understood, never guessed."""

from pathlib import Path

import pytest

from fedcore.config import Config, config_from, config_tree, load_config, presets
from fedcore.errors import BadConfig, BadInput, UnknownName


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("local.lrr=1", r"unknown parameter local\.lrr; nearest known: local\.lr"),
        ("loacl.lr=1", "unknown parameter loacl; nearest known: local"),
        ("zzz=1", "unknown parameter zzz; known: seed, run"),
        (
            "promotion.gates=[{metrc: auc}]",
            r"promotion\.gates\.metrc; nearest known: promotion\.gates\.metric",
        ),
        ("run.rounds=0", r"run\.rounds: must be greater than or equal to 1, got 0"),
        ("run.rounds=many", r"run\.rounds: .*got 'many'"),
        ("local.lr=-1", r"local\.lr: must be greater than 0, got -1"),
        ("local.lr=.nan", r"local\.lr: must be a finite number"),
        ("run=5", "run: must be"),
        ("run.device=gpu", r"run\.device: must be cpu, cuda or cuda:N with the number of a GPU, got 'gpu'"),
        ('run.device="cuda:0\\n"', r"run\.device: must be cpu, cuda or cuda:N"),
        ("run.name=a/b", r"run\.name: must be up to 100 letters, digits, .*, got 'a/b'"),
        ("run.name=../up", r"run\.name: .*got '\.\./up'"),
        ("privacy.delta=1", r"privacy\.delta: must be less than 1"),
        (
            "cohort.sampling=some",
            r"cohort\.sampling: must be .*'cyclic', 'turns', 'quality', 'fair', 'available' or 'oort'",
        ),
        ("novalue", "override 'novalue' is not KEY=VALUE"),
        ("local.lr=[", "the value is not YAML"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_path(override, message):
    with pytest.raises(BadInput, match=message):
        load_config(overrides=[override])


def test_overrides_read_numbers_lists_and_words():
    config = load_config(overrides=["local.lr=1e-2", "model.hidden=[3, 4]", "data.name=digits", "seed=5"])
    assert config.local.lr == 0.01
    assert config.model.hidden == (3, 4)
    assert (config.data.name, config.seed) == ("digits", 5)


def test_a_preset_lies_over_the_file_and_overrides_lie_over_both(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params.yaml").write_text("local: {lr: 0.5, epochs: 7}\nseed: 3\n")
    (tmp_path / "params" / "mine.yaml").write_text("local: {lr: 0.25}\n")
    config = load_config(tmp_path / "params.yaml", preset="mine", overrides=["seed=4"])
    assert (config.local.lr, config.local.epochs, config.seed) == (0.25, 7, 4)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        load_config(preset="digit")


@pytest.mark.parametrize(
    ("content", "message"),
    [("- 1\n", "holds a list, not sections"), ("a: [", "is not YAML"), (b"\xff\xfe\x00", "is not YAML")],
)
def test_a_file_that_is_not_sections_is_named(tmp_path, content, message):
    file = tmp_path / "params.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadInput, match=message):
        load_config(file)


def test_a_missing_file_is_named_and_an_empty_one_is_the_defaults(tmp_path):
    with pytest.raises(BadInput, match="cannot read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_config(tmp_path / "empty.yaml") == Config()


def test_a_tree_and_its_configuration_are_inverse():
    config = load_config(overrides=["promotion.gates=[{metric: auc, min: 0.7}]", "data.months=[1, 2]"])
    assert config_from(config_tree(config)) == config


@pytest.mark.parametrize("name", sorted(presets(Path(__file__).parent.parent)))
def test_every_preset_and_the_parameter_file_are_valid(root, name):
    assert load_config(root / "params.yaml", preset=name) != load_config(root / "params.yaml")


def test_bad_values_carry_their_path_for_programs():
    with pytest.raises(BadConfig) as caught:
        load_config(overrides=["local.momentum=1"])
    assert caught.value.path == "local.momentum"
    assert caught.value.exit_code == 2
