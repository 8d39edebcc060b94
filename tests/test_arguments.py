"""Arguments and recipes that make no sense: one sentence and exit code 2."""

import pytest

from mbt_speech.arguments import OBJECTIVE_NAMES, FinetuneArguments, PretrainArguments
from mbt_speech.command_line import parse_arguments, parse_overrides, read_label_map, recipe_to_share
from mbt_speech.user_errors import explain_user_errors, redact
from modeling_mbt.named_objectives_mbt import OBJECTIVES

PRETRAIN = ["--output_dir", "x", "--train_dir", "y"]


def complaint(capsys, words, arguments_class=PretrainArguments):
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments_class, words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--max_steps", "0"], "--max_steps must be at least 1"),
        (["--max_steps", "-7"], "--max_steps must be at least 1"),
        (["--learning_rate", "-1"], "--learning_rate must be at least 0 and is -1.0."),
        (["--per_device_train_batch_size", "1"], "--per_device_train_batch_size must be at least 2"),
        (["--learning_rate", "nan"], "--learning_rate must be a number and is nan."),
        (["--crop_seconds", "0"], "--crop_seconds must be at least 0.05"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--warmup_steps", "-1"], "--warmup_steps must be at least 0"),
        (["--sparsity_method", "rigl"], "--sparsity_method rigl needs the --density"),
        (["--density", "0.5"], "needs a --sparsity_method: static"),
        (["--objective", "nonsense"], "choose from 'bt', 'mbt', 'vicreg'"),
        (["--learning_rat", "1"], "did you mean --learning_rate?"),
        (["--eval_steps", "1", "--probe_train_dir", "a", "--probe_dataset_name", "b"], "not both"),
        (["--hub_token", "hf_one\nhf_two"], "--hub_token holds a space or a line break"),
    ],
)
def test_arguments_of_pre_training_that_make_no_sense(words, sentence, capsys):
    line = complaint(capsys, [*PRETRAIN, *words])
    assert sentence in line
    assert "hf_" not in line


def test_shares_of_the_labels_are_shares(capsys):
    for share in ("0", "1.5", "-0.1", "nan"):
        words = [*PRETRAIN, "--model_name_or_path", "m", "--label_fraction", share]
        assert "--label_fraction" in complaint(capsys, words, FinetuneArguments)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("learning_rate: true", "invalid float value: 'True'"),
        ("max_steps: 1.5", "invalid int value: '1.5'"),
        ("preset: enormous", "choose from 'faithful', 'faithful_small', 'strong', 'tiny'"),
        ("learning_rate: .nan", "--learning_rate must be a number"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", "aliases"),
        ("seed: " + "[" * 50_000, "cannot be read"),
        ("- 1", "must be a mapping"),
        ("x: [", "cannot be read"),
        ("#" * 2_000_000, "more than 1048576 bytes"),
        ("\0", "cannot be read"),
        ("learning_rat: 1", "unknown argument learning_rat: did you mean learning_rate?"),
    ],
)
def test_recipes_that_make_no_sense(text, sentence, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(text)
    assert sentence in complaint(capsys, [str(tmp_path / "recipe.yaml"), *PRETRAIN])


def test_a_recipe_sets_values_as_the_command_line_does(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "learning_rate: 1e-3\nsync_batch_norm: false\npush_to_hub: true\ninterleave_datasets: [a, b]\nmax_steps: 5\n"
        "interleave_probabilities: [0.5, 0.25, 0.25]\nconfig_overrides: {depths: [1, 1]}\nhub_model_id: null\n"
    )
    args = parse_arguments(PretrainArguments, [str(tmp_path / "recipe.yaml"), *PRETRAIN, "--max_steps", "6"])
    assert (args.learning_rate, args.sync_batch_norm, args.push_to_hub, args.max_steps) == (1e-3, False, True, 6)
    assert args.interleave_datasets == ["a", "b"]
    assert args.interleave_probabilities == [0.5, 0.25, 0.25]
    assert parse_overrides("config_overrides", args.config_overrides) == {"depths": [1, 1]}


def test_yes_and_no_are_words_in_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("mixed_precision: no\nlabel_map: {yes: Yes, no: null}\nfreeze_encoder: true\n")
    args = parse_arguments(FinetuneArguments, [str(recipe), *PRETRAIN, "--model_name_or_path", "m"])
    assert (args.mixed_precision, args.freeze_encoder) == ("no", True)
    assert read_label_map(args.label_map) == {"yes": "Yes", "no": None}


def test_a_home_folder_is_found_where_no_shell_does_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    args = parse_arguments(PretrainArguments, ["--output_dir=~/x", "--train_dir", "~/y"])
    assert (args.output_dir, args.train_dir) == ("/home/me/x", "/home/me/y")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at x.cpp:1] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_said_in_a_sentence(error, capsys):
    with pytest.raises(SystemExit), explain_user_errors([]):
        raise error
    assert capsys.readouterr().err.startswith("There is not enough memory: lower the batch size")


def test_every_objective_can_be_named():
    assert set(OBJECTIVE_NAMES) == set(OBJECTIVES)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"n_ftt": 4}', "unknown entry n_ftt: did you mean n_fft?"),
        ('{"qqq": 4}', "there are n_fft"),
        ("[" * 100_000, "must be a JSON object"),
        ("{", "must be a JSON object"),
    ],
)
def test_overrides_that_make_no_sense(text, sentence):
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        parse_overrides("feature_overrides", text, {"n_fft"})


def test_a_token_is_taken_out_of_what_is_shown_however_it_is_written(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_environment\nhf_more")
    text = redact("Illegal header value b'Bearer hf_environment\\nhf_more' and hf_more, hf_given", "hf_given")
    assert text == "Illegal header value b'Bearer ***' and ***, ***"


@pytest.mark.parametrize(
    ("words", "batch_size"),
    [
        ("--preset faithful", 64),
        ("--preset=faithful_small", 64),
        ("--preset faithful --per_device_train_batch_size 16", 16),
        ("--preset faithful --preset strong", 128),
        ("", 128),
    ],
)
def test_a_faithful_preset_brings_the_batch_of_the_paper(words, batch_size):
    args = parse_arguments(PretrainArguments, ["--train_dir", "x", "--output_dir", "y", *words.split()])
    assert args.per_device_train_batch_size == batch_size
    assert args.num_train_epochs == 50


@pytest.mark.parametrize("arguments_class", [PretrainArguments, FinetuneArguments])
def test_help_says_what_the_script_does_and_that_it_takes_a_recipe(arguments_class, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(arguments_class, ["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert f"{arguments_class.__doc__} A YAML recipe may" in words


def test_a_path_that_begins_like_json_is_shared_as_a_path(tmp_path):
    (tmp_path / "recipe.yaml").write_text("train_dir: '{data}/speech'\naugmentation: '{\"waveform\": []}'\n")
    assert "train_dir: '{data}/speech'" in recipe_to_share(tmp_path / "recipe.yaml")
