"""Claims are those of the paper, what measures them can be run, and a verdict says no more than its evidence does."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import run_alexnet

from workflows.claims import evidence, measures, page, paper
from workflows.claims.claim import ATS, Claim, comparison_name
from workflows.claims.evidence import Evidence
from workflows.claims.made_of import digest_of, made_of
from workflows.claims.verdict import verdict
from workflows.config import UsageError, check_together
from workflows.studies.comparison import folder

SETUPS = [(claim, at) for claim in paper.ALL.values() for at in ATS if claim.setup(at)]
OF_IMAGENET = [one for one in paper.ALL.values() if one.small and (not one.full or one.full.recipe[:6] == "as_run")]
IDS = """
    sparse_coding sift_fv_2010 table1_cnn table1_one_crop table2_1cnn table2_5cnns table2_1cnn_star table2_7cnns_star
    table2_sift_fv val_test_gap fall_2009 two_columns two_gpus_faster lrn lrn_cifar10 overlapping_pooling
    overlap_overfitting lighting crops_and_flips dropout dropout_iterations weight_decay middle_layers relu_6x
    parameters neurons views_2048 training_time
"""


def facts_of(claim: Claim, at: str, values: list[float], **changes) -> dict:
    """Evidence in which the first measure of each seed, or its difference or log ratio, is one of these values."""
    from workflows.studies import statistics

    setup, comparison = claim.setup(at), claim.comparison(at)
    name, made = claim.measured(at)[0], made_of(comparison)
    seeds = list(range(len(values)))
    arms = [{"name": arm, "n": len(seeds), "seeds": seeds, "num_images": setup.tested} for arm in setup.arms]
    mean = statistics.mean(values).as_json()
    pair = statistics.difference([0.0] * len(values), values).as_json()
    runs = [
        {**dict.fromkeys(evidence.OF_A_RUN, "x"), "arm": arm, "seed": seed, "train_key": f"{arm}{seed}"}
        for arm in setup.arms
        for seed in seeds
    ]
    return {
        **{"form": evidence.FORM, "claim": claim.id, "at": at, "comparison": comparison_name(claim.id, at)},
        **{"recipe": setup.recipe, "setup": digest_of(made), "made_of": made, "runs": runs, "curves": {}},
        "arms": [{**arm, "measures": {name: mean}} for arm in arms],
        "pairs": [{"first": claim.pair[0], "second": claim.pair[1], "measures": {name: pair}}],
        **{
            "codes": ["c" * 10],
            "libraries": ["numpy 2"],
            "manifests": ["d" * 64],
            "devices": ["cpu"],
            "machine": "2 CPUs",
            "hours": 1.5,
        },
        **{"date": "2026-01-01T00:00:00", "notes": []},
        **changes,
    }


def judged(claim: Claim, root: Path, **by_scale: list[float]) -> tuple[str, str]:
    """The verdict and its reason, of evidence that was written to the root and read again."""
    for at, values in by_scale.items():
        evidence.write(facts_of(claim, at, values), root)
    found, wrong = evidence.stored(claim, root, root / "elsewhere")
    assert not wrong
    one = verdict(claim, found, root)
    return one.text, one.why


def test_all_28_claims_of_the_paper_are_there():
    assert [claim.id for claim in paper.CLAIMS] == IDS.split()


@pytest.mark.parametrize(("claim", "at"), SETUPS, ids=lambda value: getattr(value, "id", value))
def test_what_measures_a_claim_can_be_run(claim, at):
    comparison, setup = claim.comparison(at), claim.setup(at)
    for member in comparison.members:
        check_together(member.config)
    made = {(member.config, member.arm.baseline) for member in comparison.members if not member.seed}
    assert len(made) == len(setup.arms)
    assert set(claim.measured(at)) <= measures.MEASURES.keys()
    if claim.kind == "value":
        assert len(setup.arms) == 1 or claim.id == "colour_by_column"  # beside it, what may decide it
    else:
        assert next(iter(setup.arms)) == claim.pair[0] != claim.pair[1]
        assert claim.pair[1] in setup.arms
    assert all(hours > 0 for hours in setup.hours().values())
    assert bool(setup.reduced) == (at == "small")


def test_all_small_comparisons_fit_a_working_day_of_two_cores():
    hours = {}
    for claim, at in SETUPS:
        if at == "small":
            setup, comparison = claim.small, claim.comparison(at)
            tested = setup.images + setup.tested
            for member in comparison.members:  # arms that several claims have are trained once
                if member.arm.baseline:
                    seconds = tested / setup.baselines_per_s[member.arm.baseline]
                    hours[claim.id, member.title] = seconds / 3600
                    continue
                config = member.config
                images = config.train.epochs * setup.images
                seconds = images / setup.images_per_s["two cores"]
                hours[config.ingest, config.net, config.loader, config.train] = seconds / 3600
    assert 1 < sum(hours.values()) < 8


def test_counts_are_computed_and_are_those_of_the_reference(tmp_path):
    found = {claim.id: verdict(claim, {}, tmp_path) for claim in paper.ALL.values() if claim.fact}
    assert {name: (one.ours, one.word) for name, one in found.items()} == {
        "parameters": ("60,965,224", "shown"),
        "neurons": ("659,272", "shown"),
        "views_2048": ("2,178", "contradicted"),
        "exchanged_bytes": ("489,376", "shown"),
    }


@pytest.mark.parametrize(
    ("values", "full", "small"),
    [
        ([0.013, 0.014, 0.015], "shown", "sign agrees at small scale"),
        ([-0.013, -0.014, -0.015], "contradicted", "sign disagrees at small scale"),
        ([-0.010, 0.002, 0.011], "not shown", "not told apart at small scale"),
        ([0.014, 0.0141], "not shown", "not told apart at small scale"),  # two seeds tell nothing
    ],
)
def test_a_difference_is_judged_by_its_interval_over_seeds(tmp_path, values, full, small):
    assert judged(paper.ALL["lrn"], tmp_path / "full", full=values)[0] == full
    assert judged(paper.ALL["lrn"], tmp_path / "small", small=values)[0] == small


@pytest.mark.parametrize("claim", OF_IMAGENET, ids=lambda claim: claim.id)
def test_a_small_run_never_shows_a_claim_about_imagenet(claim, tmp_path):
    for number, value in enumerate((-1.0, -0.01, 0.0, 0.01, 1.0)):
        values = [value - 1e-4, value, value + 1e-4]
        text, _ = judged(claim, tmp_path / str(number), small=values)
        assert text.endswith(" at small scale")


def test_a_value_is_judged_by_its_tolerance(tmp_path):
    claim = paper.ALL["table1_cnn"]
    assert judged(claim, tmp_path, full=[0.378])[0] == "shown"
    text, why = judged(claim, tmp_path, full=[0.385])
    assert (text, why) == ("not shown", "1.00 points from the paper's, of which 0.5 count as the same")


def test_no_difference_is_judged_by_its_size(tmp_path):
    claim = paper.ALL["val_test_gap"]
    assert judged(claim, tmp_path, full=[0.0005])[0] == "shown"
    assert judged(claim, tmp_path, full=[-0.003])[0] == "not shown"


def test_a_ratio_is_judged_by_its_size_too(tmp_path):
    claim = paper.ALL["relu_6x"]
    six, two, half = ([math.log(times * factor) for factor in (0.98, 1, 1.02)] for times in (6, 2, 0.5))
    assert judged(claim, tmp_path, full=six)[0] == "shown"
    assert judged(claim, tmp_path, full=two) == ("not shown", "the sign agrees; 4 to 9 times count as the paper's")
    assert judged(claim, tmp_path, full=half)[0] == "contradicted"
    found, _ = evidence.stored(claim, tmp_path)
    assert verdict(claim, found, tmp_path).ours == "0.5 (0.5-0.5)"


def test_numbers_are_written_by_their_unit(tmp_path):
    found = {
        "lrn": ([0.013, 0.014, 0.015], "+1.40 ± 0.06"),
        "weight_decay": ([0.01, 0.02, 0.03], "+0.020 ± 0.006"),
        "two_gpus_faster": ([-1200.0, -1300.0, -1400.0], "−1300 ± 58"),
        "ten_views": ([0.0155], "1.55"),
    }
    for claim, (values, text) in found.items():
        judged(paper.ALL[claim], tmp_path, full=values)
        stored, _ = evidence.stored(paper.ALL[claim], tmp_path)
        assert verdict(paper.ALL[claim], stored, tmp_path).ours == text


def test_what_was_not_run_and_what_is_others_is_said(tmp_path):
    assert judged(paper.ALL["lrn"], tmp_path) == ("not run", "nothing is stored of it")
    assert judged(paper.ALL["sparse_coding"], tmp_path)[0] == "cited"


def test_a_full_run_counts_before_a_small_one_and_what_holds_before_what_does_not(tmp_path):
    claim = paper.ALL["lrn"]
    good, bad = [0.013, 0.014, 0.015], [-0.013, -0.014, -0.015]
    assert judged(claim, tmp_path, full=good, small=bad)[0] == "shown"
    old = facts_of(claim, "full", good)
    old["made_of"]["versions"]["train"] = 1
    evidence.write(old | {"setup": digest_of(old["made_of"])}, tmp_path)
    assert judged(claim, tmp_path)[0] == "sign disagrees at small scale"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda made: made["versions"].update(train=1), "train was version 1, is 3 now"),
        (lambda made: made["common"].update({"train.epochs": 2}), "train.epochs was 2, the claim says 8"),
        (
            lambda made: made["common"].update({"evaluate.leave_out": "x"}),
            "evaluate.leave_out was x, the claim says none",
        ),
        (
            lambda made: made["arms"]["none"].update({"net.normalisation": True}),
            "net.normalisation was True, the claim says False",
        ),
        (lambda made: made["arms"].pop("none"), "its arms were normalisation"),
    ],
)
def test_evidence_of_another_setup_is_out_of_date_and_says_why(tmp_path, change, why):
    claim = paper.ALL["lrn"]
    found = facts_of(claim, "small", [0.013, 0.014, 0.015])
    change(found["made_of"])
    evidence.write(found | {"setup": digest_of(found["made_of"])}, tmp_path)
    assert judged(claim, tmp_path) == ("out of date", why)


def test_evidence_of_a_network_that_began_elsewhere_is_out_of_date(tmp_path):
    claim = paper.ALL["tables_cifar10"]
    found = facts_of(claim, "small", [0.013, 0.014, 0.015])
    assert found["made_of"]["arms"]["1 CNN*"].pop("train.init_from") == "pretrain_tiny@newest"
    evidence.write(found | {"setup": digest_of(found["made_of"])}, tmp_path)
    assert judged(claim, tmp_path) == ("out of date", "train.init_from was none, the claim says pretrain_tiny@newest")


def test_a_key_that_is_younger_than_the_evidence_had_its_default(tmp_path):
    claim = paper.ALL["lrn"]
    found = facts_of(claim, "small", [0.013, 0.014, 0.015])
    assert found["made_of"]["common"].pop("evaluate.views") == "ten"
    evidence.write(found | {"setup": digest_of(found["made_of"])}, tmp_path)
    assert judged(claim, tmp_path)[0] == "sign agrees at small scale"


def test_evidence_of_other_data_is_no_evidence(tmp_path):
    claim = paper.ALL["table1_cnn"]
    found = facts_of(claim, "full", [0.375])
    found["arms"][0]["num_images"] = 500
    evidence.write(found, tmp_path)
    text, why = judged(claim, tmp_path)
    assert (text, why) == ("out of date", "of other data: 500 images were tested, those of the claim are 150,000")


def test_evidence_of_runs_that_its_comparison_has_no_more_is_out_of_date(tmp_path):
    claim = paper.ALL["lrn"]
    found = facts_of(claim, "small", [0.013, 0.014, 0.015])
    evidence.write(found, tmp_path)
    place, runs = folder(tmp_path, found["comparison"]), [run | {"state": "done"} for run in found["runs"]]
    place.write("summary.json", json.dumps({"runs": runs}))
    assert judged(claim, tmp_path)[0] == "sign agrees at small scale"
    place.write("summary.json", json.dumps({"runs": [run | {"train_key": "new"} for run in runs]}))
    text, why = judged(claim, tmp_path)
    assert text == "out of date"
    assert "comparison claim-lrn-small has other runs now" in why


def test_a_rerun_takes_the_place_of_what_was_measured_elsewhere(tmp_path):
    claim, elsewhere = paper.ALL["lrn"], tmp_path / "elsewhere"
    written = evidence.write(facts_of(claim, "small", [0.013, 0.014, 0.015]), tmp_path)
    elsewhere.mkdir()
    written.rename(elsewhere / written.name)
    found, _ = evidence.stored(claim, tmp_path, elsewhere)
    assert not found["small"].is_ours
    assert verdict(claim, found, tmp_path).text == "sign agrees at small scale"
    evidence.write(facts_of(claim, "small", [-0.013, -0.014, -0.015]), tmp_path)
    found, _ = evidence.stored(claim, tmp_path, elsewhere)
    assert found["small"].is_ours
    assert verdict(claim, found, tmp_path).text == "sign disagrees at small scale"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ("[]", "not an object"),
        ('{"form": 0}', "its form is 0, not 1"),
        ('{"form": 1, "claim": "lrn"}', "at, comparison, setup"),
        ("\udcff", "can't decode"),
    ],
)
def test_evidence_that_cannot_be_read_is_said_in_a_line(tmp_path, text, said):
    path = tmp_path / evidence.CLAIMS / "lrn-small.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    found, (line,) = evidence.stored(paper.ALL["lrn"], tmp_path, tmp_path / "elsewhere")
    assert not found
    assert line.startswith(f"{path} is no evidence that can be read (")
    assert said in line
    assert line.endswith("`alexnet reproduce lrn --at small` makes it anew")


@pytest.mark.parametrize(
    "change",
    [
        {"claim": "lighting"},
        {"setup": "0" * 16},
        {"arms": [{"name": "none"}]},
        {"runs": ["x"]},
        {"pairs": [{"first": "a", "second": "b", "measures": {"m": {"n": 3}}}]},
        {"arms": [{"name": "a", "n": 1, "seeds": [0], "num_images": 1, "measures": [1]}]},
        {"hours": "1"},
    ],
)
def test_foreign_evidence_is_not_read(tmp_path, change):
    path = tmp_path / "lrn-small.json"
    path.write_text(json.dumps(facts_of(paper.ALL["lrn"], "small", [0.1, 0.2, 0.3]) | change))
    with pytest.raises(UsageError, match="is no evidence that can be read"):
        evidence.read(path, "lrn", "small")


def test_committed_evidence_can_be_read():
    for path in evidence.ELSEWHERE.glob("*.json"):
        claim, _, at = path.stem.rpartition("-")
        assert evidence.read(path, claim, at)
        assert claim in paper.ALL


def test_epochs_to_a_level_are_between_the_epochs():
    assert measures.epochs_to(0.25, [1, 2, 3], [0.5, 0.3, 0.2]) == pytest.approx(2.5)
    assert measures.epochs_to(0.25, [1, 2], [0.2, 0.1]) == 1
    assert measures.epochs_to(0.25, [1, 2], [0.5, 0.4]) is None


def test_the_page_has_the_papers_tables_and_empty_cells_where_nothing_was_run(tmp_path):
    claim = paper.ALL["lrn"]
    facts = facts_of(claim, "small", [0.013, 0.014, 0.015])
    rendered = {one.id: verdict(one, {}, tmp_path) for one in paper.ALL.values()}
    rendered["lrn"] = verdict(claim, {"small": Evidence(facts, tmp_path / "x.json", True)}, tmp_path)
    shown = page.render(rendered)
    for section in ("Table 1", "Table 2", "Figure 1", "Figure 3", "Ablations", "Counts"):
        assert f">{section}</h2>" in shown
    row = '<td>CNN</td><td class="number">37.5 / 17.0</td><td class="number">37.47 / 17.00</td><td class="number"></td>'
    assert row in shown
    assert "+1.40 ± 0.06" in shown
    assert "sign agrees at small scale" in shown
    assert claim.small.reduced in shown


def test_the_page_has_the_tables_rows_at_small_scale(tmp_path):
    claim = paper.ALL["tables_cifar10"]
    facts = facts_of(claim, "small", [0.05, 0.06, 0.07])
    average = {"mean": 0.21, "se": 0.004, "se_of": "test images"}
    together = {"name": "7 CNNs*", "n": 7, "seeds": [], "num_images": 10_000, "measures": {"top1_error_views": average}}
    facts["arms"].append(together)
    rendered = {one.id: verdict(one, {}, tmp_path) for one in paper.ALL.values()}
    rendered[claim.id] = verdict(claim, {"small": Evidence(facts, tmp_path / "x.json", True)}, tmp_path)
    assert rendered[claim.id].text == "sign agrees at small scale"
    section = page.render(rendered).split(">Tables 1 and 2 at small scale</h2>")[1].split("</section>")[0]
    cifar10, tiny = section.split("<tbody>")[1:]
    rows = [cells.split("</td>") for cells in cifar10.split("</tbody>")[0].split("<tr>")[1:]]
    shown = {row[0].rpartition(">")[2]: [cell.rpartition(">")[2] for cell in row[1:5]] for row in rows}
    assert list(shown) == ["Sparse coding", "SIFT + FVs", "1 CNN", "5 CNNs", "1 CNN*", "7 CNNs*"]
    assert shown["SIFT + FVs"] == ["3", "6.00 ± 0.58", "–", "+6.00 ± 0.58"]
    assert shown["7 CNNs*"] == ["7", "21.00 ± 0.40*", "–", ""]
    assert shown["5 CNNs"] == [""] * 4
    assert "not run" in cifar10  # the caption of the table that follows
    assert "Sparse coding" in tiny


def test_the_command_lists_claims_in_a_fresh_folder(tmp_path):
    listed = run_alexnet("claims", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert all(len(line) <= 80 for line in listed.stdout.splitlines())
    rows = {line.split()[0]: line for line in listed.stdout.splitlines() if line}
    assert IDS.split() == [name for name in rows if name in IDS.split()]
    assert rows["parameters"].split()[-3:] == ["60,965,224", "full", "shown"]
    assert not any(tmp_path.iterdir())
    rows = json.loads(run_alexnet("claims", "--json", cwd=tmp_path).stdout)
    assert [row["claim"] for row in rows] == list(paper.ALL)


def test_the_story_of_a_claim_has_command_cost_and_evidence(tmp_path):
    path = evidence.write(facts_of(paper.ALL["lrn"], "small", [0.013, 0.014, 0.015]), tmp_path / "runs")
    story = run_alexnet("claims", "lrn", cwd=tmp_path).stdout
    listed = run_alexnet("claims", cwd=tmp_path).stdout
    assert all(len(line) <= 80 for line in listed.splitlines())
    rows = [line.split() for line in listed.splitlines()]
    assert ["lrn", "1.4", "1.37", "+1.40", "±", "0.06", "small", "sign", "agrees"] in rows
    for words in (
        "ours     +1.40 ± 0.06 at small scale",
        "verdict  sign agrees at small scale: its interval over seeds leaves out zero",
        "95% interval of the difference, over seeds: +1.15 to +1.65",
        "measured on CIFAR-10, 20,000 training images",
        f"evidence: {path.relative_to(tmp_path)}",
        "reproduce lrn --at small --set ingest.source=FOLDER",
        "cost: 6 trainings, about 8 min 53 s of two cores",
    ):
        assert words in story
    (tmp_path / "other").mkdir()
    elsewhere = run_alexnet("claims", "lrn", "--root", "../runs", cwd=tmp_path / "other").stdout
    assert "evidence: ../runs/claims/lrn-small.json\n" in elsewhere


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["claims", "lrm"], "no claim lrm; did you mean lrn?"),
        (["reproduce", "lrm"], "no claim lrm; did you mean lrn?"),
        (["reproduce", "parameters"], "there is nothing to run for parameters: it is computed"),
        (["reproduce", "sparse_coding"], "another system's number"),
        (["reproduce", "table1_cnn"], "at full scale alone: --at full"),
        (["reproduce", "lrn", "--set", "net.activation=sigmoid"], "net.activation is 'sigmoid'"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tmp_path, said, words):
    done = run_alexnet(*said, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unmeasured_arm_says_so(tmp_path):
    claim = paper.ALL["relu_6x"]
    found = facts_of(claim, "small", [1.0, 1.1, 1.2])
    found["pairs"][0]["measures"] = {}
    evidence.write(found, tmp_path)
    assert judged(claim, tmp_path) == ("not run", "no pair of its runs came as far")


def test_a_claim_that_is_measured_no_more_is_out_of_date(tmp_path):
    claim = paper.ALL["lrn"]
    evidence.write(facts_of(claim, "small", [0.013, 0.014, 0.015]), tmp_path)
    assert judged(replace(claim, small=None), tmp_path)[0] == "out of date"
