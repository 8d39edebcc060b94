"""What stands in the way of a run that would overwrite something."""

import subprocess
import sys

import pytest
import yaml

import run_pretrain
from mbt_speech.arguments import FinetuneArguments, PretrainArguments
from mbt_speech.command_line import recipe_to_share, write_recipe
from mbt_speech.training.checkpoints import CheckpointError, list_checkpoints
from mbt_speech.training.output_folder import claim_output_dir


def pretraining(folder, **arguments):
    return PretrainArguments(output_dir=str(folder), train_dir="x", **arguments)


def fine_tuning(folder, **arguments):
    return FinetuneArguments(output_dir=str(folder), train_dir="x", model_name_or_path=["m"], **arguments)


@pytest.mark.parametrize(
    "other",
    [
        lambda folder: pretraining(folder, preset="tiny"),
        lambda folder: pretraining(folder, objective="mbt"),
        fine_tuning,
    ],
)
def test_another_model_is_overwritten_only_when_that_is_asked_for(tmp_path, other):
    write_recipe(pretraining(tmp_path), True)
    claim_output_dir(pretraining(tmp_path, learning_rate=1.0))
    args = other(tmp_path)
    with pytest.raises(ValueError, match=r"an encoder of the objective bt preset strong.*--overwrite_output_dir"):
        claim_output_dir(args)
    args.overwrite_output_dir = True
    claim_output_dir(args)


def test_classifiers_of_another_task_and_models_without_a_recipe_stay(tmp_path):
    write_recipe(fine_tuning(tmp_path, label_column_name="speaker"), True)
    claim_output_dir(fine_tuning(tmp_path, label_column_name="speaker"))
    with pytest.raises(ValueError, match=r"classifiers of the label_column_name speaker.*--overwrite_output_dir"):
        claim_output_dir(fine_tuning(tmp_path, label_column_name="word"))
    (tmp_path / "recipe.yaml").write_text("&a [*a, *a]")
    with pytest.raises(ValueError, match="cannot be read"):
        claim_output_dir(fine_tuning(tmp_path, label_column_name="speaker"))
    (tmp_path / "recipe.yaml").rename(tmp_path / "config.json")
    with pytest.raises(ValueError, match="holds a model"):
        claim_output_dir(fine_tuning(tmp_path, label_column_name="speaker"))


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    code = (
        "import sys; from mbt_speech.arguments import PretrainArguments as A;"
        "from mbt_speech.training.output_folder import claim_output_dir;"
        "claim_output_dir(A(output_dir=sys.argv[1], train_dir='x')); print('claimed', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(ValueError, match="Another run is writing into"):
            claim_output_dir(pretraining(tmp_path))
        other.kill()
    claim_output_dir(pretraining(tmp_path))


@pytest.mark.slow
def test_a_run_starts_anew_over_checkpoints_only_when_that_is_asked_for(speech_folder, tmp_path):
    words = ["--train_dir", str(speech_folder), "--preset", "tiny", "--per_device_train_batch_size", "4",
             "--save_steps", "1", "--output_dir", str(tmp_path)]  # fmt: skip
    run_pretrain.main([*words, "--max_steps", "4"])
    (tmp_path / "model.safetensors").unlink()  # as if it had been interrupted
    with pytest.raises(CheckpointError, match=r"holds checkpoint-3: continue with --resume_from_checkpoint auto"):
        run_pretrain.main([*words, "--max_steps", "4"])
    run_pretrain.main([*words, "--max_steps", "4", "--resume_from_checkpoint", str(tmp_path / "checkpoint-2")])
    run_pretrain.main([*words, "--max_steps", "2", "--overwrite_output_dir"])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())  # which says nothing of earlier runs
    assert not {"overwrite_output_dir", "resume_from_checkpoint"} & set(recipe)
    assert recipe["max_steps"] == 2


def test_a_launch_that_fails_leaves_the_recipe_that_is_there(tmp_path):
    (tmp_path / "empty").mkdir()
    write_recipe(pretraining(tmp_path, preset="tiny", seed=7), True)
    before = (tmp_path / "recipe.yaml").read_bytes()
    with pytest.raises(ValueError, match="holds no recordings"):
        run_pretrain.main(
            ["--train_dir", str(tmp_path / "empty"), "--preset", "tiny", "--seed", "8", "--output_dir", str(tmp_path)]
        )
    assert (tmp_path / "recipe.yaml").read_bytes() == before


def test_a_recipe_tells_others_no_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = f'{{"waveform": [{{"name": "noise", "folder": "{tmp_path.parent}/noises"}}]}}'
    args = pretraining(tmp_path / "runs" / "mine", augmentation=noise, interleave_datasets=[f"{tmp_path.parent}/more"])
    args.train_dir, args.hub_token = str(tmp_path.parent / "speech"), "hf_secret"
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    write_recipe(args, True)
    assert "hf_secret" not in (tmp_path / "runs" / "mine" / "recipe.yaml").read_text()
    text = recipe_to_share(tmp_path / "runs" / "mine" / "recipe.yaml")
    assert str(tmp_path.parent) not in text
    values = yaml.safe_load(text)
    assert (values["output_dir"], values["train_dir"], values["interleave_datasets"]) == (
        "runs/mine",
        "speech",
        ["more"],
    )
    assert '"folder": "noises"' in values["augmentation"]


def test_a_finished_encoder_is_not_trained_over_unless_that_is_asked_for(tmp_path):
    write_recipe(pretraining(tmp_path), True)
    (tmp_path / "model.safetensors").write_bytes(b"")
    elsewhere = str(tmp_path.parent / "other" / "checkpoint-2")
    for resumed in (None, "auto", elsewhere):  # there is no checkpoint here
        with pytest.raises(ValueError, match=r"which this run would overwrite"):
            claim_output_dir(pretraining(tmp_path, resume_from_checkpoint=resumed))
    (tmp_path / "checkpoint-2").mkdir()
    claim_output_dir(pretraining(tmp_path, resume_from_checkpoint="auto"))
    claim_output_dir(pretraining(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-2")))
    claim_output_dir(pretraining(tmp_path, overwrite_output_dir=True))


@pytest.mark.parametrize("content", ["", "half", "- a list"])
def test_a_damaged_recipe_is_named(content, tmp_path):
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"recipe\.yaml is damaged: delete it to go on with its run\."):
        claim_output_dir(pretraining(tmp_path, resume_from_checkpoint="auto"))
