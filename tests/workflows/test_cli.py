"""Wrong use gets one clear line and exit code 2, and leaves nothing behind."""

import json
import re
import subprocess
import sys
from pathlib import Path

import crash
import pytest
from builders import class_folders, huggingface, write_files

from workflows.config import UsageError, load

VERBS = ("run", "compare", "ingest", "status", "bench", "ui", "predict", "verify")


def alexnet(*argv, cwd, **more):
    return subprocess.run(
        [sys.executable, "-m", "workflows.cli", *map(str, argv)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": crash.environment()["PYTHONPATH"], "PATH": "/usr/bin:/bin", "HOME": str(cwd), **more},
        check=False,
    )


def refused(result, *words):
    """Exit code 2 and a single line that has all the words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0]


def outputs(folder):
    """Stage folders and databases that a command left."""
    return [path for path in Path(folder).glob("runs/*") if path.name != "index"]


def test_a_source_that_does_not_exist(tmp_path):
    refused(alexnet("run", "--set", "ingest.source=/no/such/place", cwd=tmp_path), "/no/such/place")
    assert outputs(tmp_path) == []


def test_an_empty_source(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(alexnet("run", "--set", "ingest.source=empty", cwd=tmp_path), "empty")
    assert outputs(tmp_path) == []


def test_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes" / "a").mkdir(parents=True)
    (tmp_path / "notes" / "a" / "one.txt").write_text("no picture")
    refused(alexnet("run", "--set", "ingest.source=notes", cwd=tmp_path), "notes")
    assert outputs(tmp_path) == []


@pytest.mark.slow
def test_files_that_only_look_like_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "fake" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "fake" / name / f"{i}.jpg").write_text("no picture")
    result = alexnet("run", "--set", "ingest.source=fake", cwd=tmp_path)
    assert result.returncode == 2
    assert "none of the first 10 files" in result.stderr.strip().splitlines()[-1]
    assert not list(tmp_path.glob("runs/ingest/*/*"))


@pytest.mark.slow
def test_a_source_with_too_many_damaged_images_is_not_read_to_its_end(tmp_path):
    files = class_folders(images=200)
    write_files(
        tmp_path / "source", {name: data[: 200 if i % 2 else None] for i, (name, data) in enumerate(files.items())}
    )
    settings = {"ingest.source": "source", "ingest.size": 32, "ingest.rows_per_shard": 8, "ray.num_cpus": 1}
    command = ["ingest", *(f"--set={name}={value}" for name, value in settings.items())]
    result = alexnet(*command, cwd=tmp_path)
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert "of 400 images are damaged, more than ingest.max_bad=0.01 (" in last
    assert "quarantine.parquet; mend the source or raise ingest.max_bad" in last
    assert 0 < len(list(tmp_path.glob("runs/ingest/*/data/*.tfrecord"))) < 10
    assert alexnet(*command, "--set=ingest.max_bad=0.6", cwd=tmp_path).returncode == 0
    assert len(list(tmp_path.glob("runs/ingest/*/data/*.tfrecord"))) == 51


def test_an_unknown_recipe(tmp_path):
    refused(alexnet("run", "--recipe", "papr", cwd=tmp_path), "unknown recipe papr", "did you mean paper?")


def test_an_unknown_key(tmp_path):
    refused(alexnet("run", "--set", "ingest.sorce=x", cwd=tmp_path), "did you mean ingest.source?")


def test_a_stage_before_its_inputs(tmp_path):
    refused(alexnet("train", cwd=tmp_path), "needs the output of ingest", "workflows.cli ingest`")
    assert outputs(tmp_path) == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "--from", "evaluate", "--until", "train"], ["--from evaluate", "nothing would run"]),
        (["run", "--until", "stats", "--redo", "train"], ["--redo train", "ingest, stats"]),
        (["ingest", "--redo", "report"], ["--redo report"]),
        (["run", "--config", "."], ["cannot read the configuration file", "directory"]),
        (["run", "--root", "a_file"], ["--root a_file is no folder"]),
        (["status", "--root", "a_file"], ["--root a_file is no folder"]),
        (["bench", "ingest", "--images", "nosuch"], ["--images nosuch"]),
        (["bench", "ingest", "--repeats", "0"], ["--repeats"]),
        (["run", "--set", "store=foo://x"], ["store is 'foo://x'", "s3://"]),
        (["run", "--set", "store=a_file"], ["a_file is no folder"]),
        (["run", "--set", "ingest.seed=-1"], ["ingest.seed is -1; use 0 to 2**32 - 1"]),
        (["run", "--set", "ray.task_retries=-1"], ["ray.task_retries is -1"]),
        (["run", "--set", "ingest.max_pixels=0"], ["ingest.max_pixels is 0"]),
        (["run", "--set", "evaluate.split=dev"], ["evaluate.split is 'dev'; use val or test or train"]),
        (
            ["features", "--set", "features.splits=dev"],
            ["features.splits is dev; use some of train,val,test, each once"],
        ),
        (["features", "--set", "features.splits=val,val"], ["features.splits is val,val"]),
        (["features", "--set", "features.splits=test"], ["there are no images of test", "train,val"]),
        (
            ["neighbours", "--set", "neighbours.split=test"],
            ["neighbours of test among train need features of test", "set features.splits=train,val,test"],
        ),
        (["codes", "--set", "codes.bits=[28,0]"], ["codes.bits is 28,0; give counts of bits"]),
        (["baseline"], ["required: BASELINE"]),
        (["baseline", "vgg"], ["BASELINE", "invalid choice: 'vgg'"]),
        (["baseline", "fisher", "--set", "fisher.gaussians=0"], ["fisher.gaussians is 0; use 1 or more"]),
        (["baseline", "sparse", "--set", "evaluate.split=test"], ["evaluate.split=test: there are no such images"]),
        (["run", "--from", "features"], ["--from", "invalid choice"]),
        (["run", "--redo", "features"], ["--redo features: features is not among the stages to run"]),
        (["run", "--set", "evaluate.split=test"], ["evaluate.split=test: there are no such images", "train, val"]),
        (["run", "--set", "net.input_px=96"], ["net.input_px is 96", "ingest.size=72"]),
        (["run", "--set", "net.columns=1", "--set", "train.placement=columns"], ["train.placement=columns"]),
        (["ui", "--set", "tracking.uri=off"], ["tracking.uri=off"]),
        (["predict", "a_file", "--model", "nosuch"], ["nosuch"]),
        (["verify"], ["nothing to verify", "ingest`"]),
        (["compare"], ["no comparison is stored under runs; --vary KEY=VALUE,VALUE"]),
        (["compare", "lrn"], ["no comparison lrn under"]),
        (["compare", "--seeds", "2"], ["--seeds needs arms: --vary"]),
        (["compare", "lrn", "--vary", "train.lr=1,2"], ["--name lrn"]),
        (["compare", "--vary", "train.lr=1,2", "--seeds", "0"], ["--seeds: 0 is no number"]),
        (["compare", "--vary", "train.lr=1,2", "--name", "../x"], ["--name ../x: use at most 60 letters"]),
        (["compare", "--vary", "net.input_px=64,96"], ["arm input_px=96: net.input_px is 96", "ingest.size=72"]),
        (["compare", "--vary", "train.placement=one,auto"], ["one and placement=auto differ in nothing"]),
        (["compare", "--arm", "a", "--set", "evaluate.models=x"], ["compare models alone"]),
        ([], ["required: COMMAND", "`alexnet --help`"]),
        (["trian"], ["invalid choice: 'trian'", "train", "`alexnet --help`"]),
        (["status", "--bogus"], ["unrecognized arguments: --bogus"]),
        (["run", "--from", "nope"], ["--from", "'nope'", "`alexnet run --help`"]),
        (["run", "--recipe", "demo", "--config", "a_file"], ["--config", "--recipe"]),
        (["run", "--set", "train"], ["--set train: write it as KEY=VALUE"]),
        (["plan", "--set", "recipe=cifar10"], ["--set recipe=cifar10", "use --recipe cifar10"]),
        (["plan", "--config", "odd.toml"], ["odd.toml: unknown recipe cifar1; did you mean cifar10?"]),
        (["compare", "--vary", "recipe=demo,cifar10"], ["the same for all arms: use --recipe NAME"]),
        (["run", "--set", "train=5"], ["unknown key train", "train."]),
        (["status", "--config", "nosuch.toml"], ["no configuration file nosuch.toml"]),
        (["status", "--config", "binary"], ["binary is not TOML"]),
        (["status", "--root", "a_file/runs"], ["a_file/runs cannot be a folder", "name another"]),
        (["run", "--root", ""], ["--root", "empty", "name a folder"]),
        (["status", "--root", "r\udcffns"], ["--root", "'r\\udcffns' is not UTF-8"]),
        (["run", "--set", "ingest.source=r\udcffns"], ["--set", "is not UTF-8"]),
        (["ui", "--port", "0"], ["--port: 0 is no port", "1024 to 65535"]),
        (["ui", "--port", "99999"], ["--port: 99999 is no port"]),
        (["ui", "--port", "http"], ["--port: http is no port"]),
    ],
    ids=lambda value: ascii(" ".join(value)) if value[:1] and value[0] in VERBS else "",
)
def test_wrong_use_is_refused_before_anything_runs(tmp_path, argv, words):
    (tmp_path / "a_file").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "odd.toml").write_text('recipe = "cifar1"\n')
    refused(alexnet(*argv, cwd=tmp_path), *words)
    assert outputs(tmp_path) == []


def test_what_only_looks_creates_nothing(tmp_path):
    for verb in ("status", "plan", "clean", "config"):
        assert alexnet(verb, "--root", "mistyped", cwd=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_printed_command_has_all_that_was_said(tmp_path):
    """So that it means the same run when it is pasted."""
    settings = ("--set", "ingest.limit=5", "--set", "tracking.experiment=a b")
    said = alexnet("train", *settings, "--root", "my runs", cwd=tmp_path).stderr
    command = said.partition("run `")[2].partition("`")[0]
    assert command.endswith("ingest --set=ingest.limit=5 '--set=tracking.experiment=a b' '--root=my runs'")
    assert command.startswith(f"{sys.executable} -m workflows.cli ")


def test_a_damaged_record_is_named_and_passed_over(tmp_path):
    broken = tmp_path / "runs" / "ingest" / "0123" / "stage.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{}")
    for verb in ("status", "plan"):
        looked = alexnet(verb, cwd=tmp_path)
        assert looked.returncode == 0, looked.stderr
        assert f"passing over {broken} is damaged (it lacks stage, key" in looked.stderr
        assert "clean ingest/0123` offers to remove it" in looked.stderr
    assert "its record is damaged" in alexnet("clean", "--finished", cwd=tmp_path).stdout


def test_all_commands_go_on_with_the_last_configuration_and_name_it(tmp_path):
    (tmp_path / "runs").mkdir()
    made = alexnet("config", "--recipe", "cifar10", "--set=ingest.source=demo", cwd=tmp_path).stdout
    (tmp_path / "runs" / "config.toml").write_text(made)
    for verb in ("status", "plan", "config"):
        said = alexnet(verb, "--set=train.epochs=20", cwd=tmp_path).stderr
        assert said == "configuration: cifar10, as in the last run (runs/config.toml); train.epochs=20\n"
    printed = alexnet("config", "--set=train.epochs=20", cwd=tmp_path).stdout
    assert "epochs = 20 " in printed
    assert 'recipe = "cifar10"' in printed
    assert alexnet("config", "--recipe", "demo", cwd=tmp_path).stderr == "configuration: demo, the recipe\n"


@pytest.mark.parametrize(("text", "word"), [("", "is empty"), ("[", "is not TOML")])
def test_a_damaged_last_configuration_says_how_to_go_on(tmp_path, text, word):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.toml").write_text(text)
    refused(alexnet("status", cwd=tmp_path), "runs/config.toml", word, "--recipe")
    assert alexnet("status", "--recipe", "demo", cwd=tmp_path).returncode == 0


def test_secrets_reach_no_terminal(tmp_path):
    given = ["--set=store=s3://AKIA:abc/def@bucket/p", "--set=tracking.uri=off"]
    for verb in ("config", "status"):
        said = alexnet(verb, *given, cwd=tmp_path)
        assert "abc" not in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("files", "settings", "words"),
    [
        ({"classes": "a"}, (), ["holds a single class, 'a'", "name the folder that holds"]),
        ({"classes": "ab"}, ("ingest.val_fraction=0",), ["evaluate.split=val", "train"]),
        ({"classes": "ab"}, ("net.num_classes=3",), ["net.num_classes is 3", "has 2"]),
        (
            {"classes": "ab"},
            ("ingest.val_fraction=0", "evaluate.split=train", "train.schedule=plateau"),
            ["train.schedule=plateau"],
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_ingest(tmp_path, files, settings, words):
    write_files(tmp_path / "source", class_folders(images=30, **files))
    given = ["--set=ingest.source=source", *(f"--set={setting}" for setting in settings)]
    refused(alexnet("run", *given, cwd=tmp_path), *words)
    assert outputs(tmp_path) == []


def test_every_printed_key_has_its_meaning_and_its_default(tmp_path):
    printed = alexnet("config", cwd=tmp_path).stdout
    assert (
        "epochs = 8  # times that the training set is seen, or a part of one; the paper: about 90; default 90"
        in printed
    )
    lines = [line for line in printed.splitlines() if " = " in line]
    assert len(lines) > 50
    assert all("; default " in line.partition("  # ")[2] for line in lines)


def test_a_mistake_in_a_schedule_is_shown_where_it_is(tmp_path):
    said = alexnet("plan", "--set", "train.schedule=1:*=.01 3:conv1=x", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.splitlines() == [
        "alexnet: train.schedule: 'x' is not a value, a number of 0 or more",
        "  1:*=.01 3:conv1=x",
        "                  ^",
    ]
    said = alexnet("plan", "--set", "train.schedule=1:*=.01 3:conv9=0", cwd=tmp_path)
    assert said.returncode == 2
    assert "train.schedule: conv9 is no layer of this network; it has conv1, conv2" in said.stderr.splitlines()[-1]


def test_a_plan_shows_the_rates_from_epoch_to_epoch(tmp_path):
    shown = alexnet("plan", "--set", "train.schedule=1:*=.01 2.5:conv1=0 3:light=0 9:*=.001", cwd=tmp_path).stdout
    lines = [line.split() for line in shown.splitlines()]
    table = lines[lines.index(["epoch", "conv1", "others", "light"]) + 2 :]
    assert table[:3] == [["1", "0.01", "0.01", "0.1"], ["2.5", "frozen", "0.01", "0.1"], ["3", "frozen", "0.01", "0"]]
    assert " ".join(table[3]) == "train.epochs=8 ends before the change of epoch 9"


def test_a_key_or_a_section_is_explained_alone(tmp_path):
    said = alexnet("config", "train.lr", "ray", "--set", "ray.num_cpus=3", cwd=tmp_path).stdout.splitlines()
    assert said[:2] == [
        "train.lr = 0.01",
        "    initial learning rate, where the schedule does not say the rates; default 0.01",
    ]
    assert "ray.num_cpus = 3" in said
    assert {line.partition(" ")[0].partition(".")[0] for line in said if line[0] != " "} == {"train", "ray"}
    refused(alexnet("config", "trian.lr", cwd=tmp_path), "unknown key trian.lr; did you mean train.lr?")


def test_the_version_names_the_commit(tmp_path):
    assert re.fullmatch(
        r"alexnet [\d.]+, commit (unknown|[0-9a-f]{40}(\+changes)?)\n", alexnet("--version", cwd=tmp_path).stdout
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alexnet sta", ["stats", "status"]),
        ("alexnet run --recipe as_", ["as_run", "as_run_2012"]),
        ("alexnet run --set train.sched", ["train.schedule="]),
        ("alexnet plan --set net.dropout=", ["true", "false"]),
        ("alexnet run --set train.optimizer=p", ["paper"]),
        ("alexnet config net.lrn_k", ["net.lrn_k"]),
        ("alexnet run --set nothing=", []),
    ],
)
def test_a_shell_completes_commands_keys_values_and_recipes(line, words, tmp_path):
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "said"), "_ARGCOMPLETE_IFS": " "}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    asked["_ARGCOMPLETE_COMP_WORDBREAKS"] = "= "
    done = alexnet(cwd=tmp_path, **asked)
    assert done.stderr == ""
    assert (tmp_path / "said").read_text().split() == words


def test_help_loads_nothing_but_what_it_prints(tmp_path):
    assert "exit codes: 0 done, 1 failed" in " ".join(alexnet("--help", cwd=tmp_path).stdout.split())
    code = "import sys; from workflows.cli import main; main(['--help']); print('LOADED', *sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=crash.environment()
    )
    loaded = {name.partition(".")[0] for name in said.stdout.rpartition("LOADED ")[2].split()}
    assert not loaded & {"numpy", "torch", "ray", "mlflow", "nvidia", "pandas", "pyarrow", "rich"}


def test_status_and_plan_are_lists_for_programs(tmp_path):
    for verb in ("status", "plan"):
        rows = json.loads(alexnet(verb, "--json", cwd=tmp_path).stdout)
        optional = (
            ["features", "neighbours", "codes", "fisher", "sparse"] if verb == "plan" else []
        )  # status says what is there
        assert [row["stage"] for row in rows] == ["ingest", "stats", "train", "evaluate", "report", *optional]
        wanted = {"stage", "state", "key", "path", "mlflow_run_id", "seconds", "reasons"}
        assert all(wanted <= row.keys() and row["state"] == "MISSING" for row in rows)


def test_a_printed_configuration_is_taken_back(tmp_path):
    printed = alexnet("config", "--recipe", "as_run", "--set", "train.epochs=7", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(printed)
    assert alexnet("config", "--config", "mine.toml", cwd=tmp_path).stdout == printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("net.kernels = 5", "net.kernels is 5; use a list such as"),
        ("net.kernels = [2.5, 4, 6, 8, 10]", "net.kernels is [2.5, 4, 6, 8, 10]; use a list"),
        ("net.fc = [true, 4]", "net.fc is [True, 4]; use a list"),
        ("train.epochs = true", "train.epochs is True; use a finite number"),
        ("train.batch_size = 2.0", "train.batch_size is 2.0; use a whole number"),
        ("train.seed = 99999999999999999999", "use a whole number"),
        ("train.lr = inf", "train.lr is inf; use a finite number"),
        ("train.lr = nan", "train.lr is nan; use a finite number"),
        ("train.lr = false", "train.lr is False; use a finite number"),
        ("loader.flip = 1", "loader.flip is 1; use true or false"),
        ("ingest.source = 5", "ingest.source is 5; use text"),
    ],
)
def test_a_value_of_another_type_in_a_file_is_refused(tmp_path, line, message):
    (tmp_path / "mine.toml").write_text(line)
    with pytest.raises(UsageError) as error:
        load(tmp_path / "mine.toml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_source_without_training_images_is_refused_before_ingest(tmp_path):
    huggingface(tmp_path / "source", {"train-00000-of-00001.parquet": [], "validation-00000-of-00001.parquet": [0, 1]})
    refused(alexnet("run", "--set=ingest.source=source", cwd=tmp_path), "train-00000-of-00001.parquet has no rows")
    assert outputs(tmp_path) == []
