"""What the sections say, by numbers that were put into the records."""

from __future__ import annotations

import re
from dataclasses import replace

from orchestrator.reports.page.across import across_section
from orchestrator.reports.page.costs import cost_section
from orchestrator.reports.page.groups import group_sections
from orchestrator.reports.page.origin import origin_section
from orchestrator.reports.page.page import render_page
from orchestrator.reports.page.summary import findings, header
from orchestrator.reports.page.trouble import trouble_section
from orchestrator.trials.records import DECIDED, State, TrialUsage
from orchestrator.trials.trial import Role

from ..table_records import DECIDED as DECIDED_RECORDS
from ..table_records import make_records
from .page_records import PROVENANCE, STATES, USAGE, report_of, with_history


def plain(markup: str) -> str:
    """Return the text alone, one space between words."""
    return " ".join(re.sub(r"<[^>]+>", " ", markup).split())


def test_the_first_thing_said_is_what_did_not_go_as_planned() -> None:
    page = render_page(report_of(STATES))
    said = plain(header(report_of(STATES)))
    assert "Not finished: 4 trials of 30 still to do, 2 of them running" in said
    assert "Failed: 1 trial of 30" in said
    assert "Pruned: 2 trials of 30" in said
    assert "Left out: 1 trial of 30" in said
    assert page.index("Not finished:") < page.index("What is found")


def test_a_sweep_that_went_as_planned_has_no_warning() -> None:
    report = report_of(with_history(DECIDED_RECORDS))
    assert 'role="note"' not in header(report)
    assert "10 of 10" in plain(header(report))
    quiet = replace(report, usage={})
    assert "Every trial ran to its end in its first attempt." in trouble_section(quiet)


def test_trials_that_growing_seeds_do_not_need_are_no_warning_but_told_below() -> None:
    spared = [replace(STATES[-6], trial=replace(STATES[-6].trial, seed=seed), skip_reason=DECIDED) for seed in (4, 5)]
    assert {each.state for each in spared} == {State.SKIPPED}
    report = report_of([*with_history(DECIDED_RECORDS), *spared])
    assert "Left out" not in header(report)
    assert f"2 trials: {DECIDED}" in plain(trouble_section(report))


def test_findings_are_the_sentences_of_the_table() -> None:
    said = plain(findings(report_of(with_history(DECIDED_RECORDS))))
    # 3.1 with t of 4 degrees of freedom: 2.776 x .0707 / sqrt(5) = .088
    assert said == "What is found mIoU is better with norm@all: +3.1 [+3.0, +3.2] (1 arm, 5 seeds)."


def test_a_group_has_forest_table_parameters_and_curves() -> None:
    records = with_history([*DECIDED_RECORDS, *make_records("qkv@all", 0.0, 1.1, 2.2, 0.4, 1.6)])
    section = group_sections(report_of(records))
    assert "▲" not in section  # the mark of a verdict is the style sheet's
    assert 'class="v v-better">better' in section
    assert {"Gain against extra parameters", "On the way"} <= set(re.findall(r"<h3>(.*?)</h3>", section))
    assert "Shaded: the smallest effect of interest, 0.5 to either side." in section
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", section)
    # One residual variance of 8 degrees of freedom, s = .066: Dunnett's 2.67 s sqrt(2 / 5) = .11 around 3.1.
    assert "34.1 ± 0.9 +3.1 [+3.0, +3.2] better" in map(plain, cells)


def test_across_groups_an_arm_has_what_it_does_more_and_what_it_does_over_all() -> None:
    # The arm's difference is 3.1 in the first group and 5.1 in the second: 2 more there, 4.1 over both.
    records = [
        replace(
            each,
            trial=replace(each.trial, group=group, group_id=group, arm_id=group + each.trial.arm),
            metrics={name: value + more * (each.trial.role is Role.ARM) for name, value in each.metrics.items()},
        )
        for group, more in (("scale=nano", 0.0), ("scale=<b>", 2.0))
        for each in with_history(DECIDED_RECORDS)
    ]
    section = across_section(report_of(records))
    said = plain(section)
    assert section.count("<svg") == 2
    assert "as in scale=nano" in said
    assert "norm@all +2.0 [" in said
    assert "Over all groups" in said
    assert "+4.1 [" in said
    assert "scale=<b>" not in section
    assert across_section(report_of(DECIDED_RECORDS)) == ""
    # What is said of all groups stands under a heading of its own, not under that of the last group.
    *_, of_last, across = findings(report_of(records)).split("<h3>")
    assert of_last.startswith("scale=&lt;b&gt;</h3>")
    assert "depend on" not in of_last
    assert plain(across).startswith("Across groups Does the effect on mIoU depend on the group?")
    assert "Across groups" not in findings(report_of(DECIDED_RECORDS))


def test_what_was_not_learnt_is_told_first() -> None:
    stuck = {"dino_loss": 2.5, "dino_loss_trivial": 2.5}
    records = [replace(each, metrics={**each.metrics, **stuck}) for each in with_history(DECIDED_RECORDS)]
    assert "Not learnt: DINO loss 2.5 of 2.5 for trivial outputs in 10 trials of 2 arms" in plain(
        header(report_of(records))
    )


def test_cost_is_the_core_time_of_all_trials_or_the_gpu_time_of_all_attempts() -> None:
    records = with_history(DECIDED_RECORDS)
    said = plain(cost_section(report_of(records)))
    # 5 trials of 36 core seconds and 40 s of wall time each
    assert "core minutes" in said
    assert "none 5 3.00 3.33 50%" in said
    assert "all 10 6.00 6.67" in said
    usage = {each.trial.trial_id: TrialUsage(1, 1800.0, 3600.0 * (1 + (each.trial.arm != "none"))) for each in records}
    said = plain(cost_section(replace(report_of(records), usage=usage)))
    assert "GPU hours" in said
    assert "norm@all 5 10.00 0.06 67%" in said


def test_failures_prunings_and_retries_are_listed_with_their_reasons() -> None:
    said = plain(trouble_section(report_of(STATES)))
    assert "Failed : 1 trial" in said
    assert "failed@all seed 1 0 ValueError: a b" in said
    assert "Pruned : 2 trials" in said
    assert "1 trial: time_budget_h: 1" in said
    assert "late@all seed 0 1 running, step 50 of 200" in said
    assert "Tried again : 1 trial (worker 1, lost 1)" in said
    assert USAGE[STATES[1].trial.trial_id].attempts == 1


def test_a_long_list_of_failures_says_how_many_more_there_are() -> None:
    failed = [replace(STATES[10 + 1], trial=replace(STATES[11].trial, seed=seed)) for seed in range(130)]
    assert all(each.state is State.FAILED for each in failed)
    assert "and 30 more trials, which" in plain(trouble_section(report_of(failed)))


def test_the_origin_tells_code_versions_and_data_but_not_whose_machine_it_was() -> None:
    section = origin_section(report_of(with_history(DECIDED_RECORDS)))
    said = plain(section)
    texts = ("specsweep run x.yaml", "c0de" * 16, "torch (version) 2.14.0", "f00d", "cpu A processor", "2026-01")
    for expected in texts:
        assert expected in said
    assert "seeds: 5\n# &lt;b&gt;" in section
    assert PROVENANCE.host not in section
    assert "somebody" not in section
