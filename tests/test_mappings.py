"""The rules people edit: read, checked, bound to a Mautic."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from mautic_sync.domain.classification import Decision, decide
from mautic_sync.domain.contact import Catalogue, Signals, VerdictSignal
from mautic_sync.domain.scoring import MOST_POINTS, Decay, score
from mautic_sync.domain.validation import Verdict
from mautic_sync.errors import ConfigError
from mautic_sync.mapping_files import FILES
from mautic_sync.mappings import (
    MappingsError,
    NewField,
    SegmentOf,
    Templates,
    load_mappings,
    mappings_schema,
    packaged_mappings_dir,
)
from mautic_sync.yaml_text import read_yaml

DAY = 86_400
GHOST = "  - {stage: Ghost, kind: ghost, weight: 10}\n"
CORE = dict.fromkeys(
    ("email", "firstname", "lastname", "phone", "mobile", "city", "state", "country", "company", "position"), "text"
)
MAUTIC = Catalogue(fields={**CORE, "country": "country"})


@pytest.fixture
def rules(tmp_path):
    """Writes files into a directory of rules and reads it."""

    def read(history_seconds=400 * DAY, **files):
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        return load_mappings(tmp_path, history_seconds=history_seconds)

    return read


@pytest.fixture
def problems(rules, tmp_path):
    """The problems of a directory of rules, without its name."""

    def read(**files):
        with pytest.raises(MappingsError) as caught:
            rules(**files)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return read


def scored(*rules, extra=""):
    """A scoring.yaml with these rules in the group `fit`, the first in line 3."""
    lines = "".join(f"  {rule},\n" for rule in rules)
    return f"version: 1\ngroups: {{fit: [\n{lines}]}}\n{extra}"


def stages(*when, extra=""):
    lines = [f"  - {{stage: S{i}, kind: lead, weight: {50 - i}, when: {one}}}\n" for i, one in enumerate(when)]
    return f"version: 1\nstages:\n{''.join(lines)}{GHOST}{extra}"


# The defaults


def test_the_packaged_rules_are_read_without_a_warning():
    mappings = load_mappings(None, history_seconds=400 * DAY)
    assert [stage.name for stage in mappings.stages.stages] == ["Customer", "Lead", "Ghost"]
    assert mappings.stages.managed == {"Customer", "Lead", "Ghost"}
    assert mappings.stages.by_name["Customer"].sticky
    assert mappings.stages.respect_manual == 90 * DAY
    assert (mappings.stages.loop_guard.changes, mappings.stages.loop_guard.within) == (3, DAY)
    assert mappings.validation.ask_held == (21_600, DAY, 3 * DAY, 7 * DAY, 30 * DAY)
    assert mappings.validation.order == (("score", True), ("identified", True))
    assert mappings.validation.append["state"] == "region"
    assert (mappings.validation.reject_dnc, mappings.validation.reject_tag) == (True, "email-rejected")
    assert NewField("zb_checked", "Email checked", "datetime") in mappings.fields.create
    assert mappings.fields.create_segments["Hot leads"] == SegmentOf(tag="hot")
    assert mappings.warnings == ()


def test_the_packaged_rules_need_evidence_for_four_things():
    mappings = load_mappings(None)
    assert {matcher.type for matcher in mappings.matchers} == {
        "form.submitted", "page.hit", "Order Completed", "product",
    }  # fmt: skip
    assert {"email.read", "asset.download", "dnc.unsubscribed", "product"} <= mappings.activity_types


def test_the_packaged_rules_fit_a_fresh_mautic():
    bound = load_mappings(None, history_seconds=400 * DAY).bind(MAUTIC)
    assert bound.warnings == ()
    decided = decide(Signals({"orders_count": 3}), bound.stages, None, 0, gate_open=False)
    assert decided.stage == "Ghost"  # this Mautic has no such field, whatever the store remembers


def test_the_packaged_directory_is_the_one_people_see():
    assert (packaged_mappings_dir() / "stages.yaml").is_file()


def test_nobody_is_kept_from_zerobounce_by_default():
    assert load_mappings(None).validation.only_if.holds(Signals({"country": "Germany"}), 0)


# Reading


def test_a_file_that_is_missing_is_the_packaged_one(rules):
    mappings = rules(stages=stages("{tag: x}"))
    assert [stage.name for stage in mappings.stages.stages] == ["S0", "Ghost"]
    assert mappings.validation.per_run == 1_000


def test_a_packaged_segment_on_a_stage_that_is_not_there_is_left_out_with_a_warning(rules):
    mappings = rules(stages=stages("{tag: x}"))
    assert set(mappings.fields.create_segments) == {"Ghosts", "Hot leads", "Low value"}
    assert "no stage `Lead` is managed here, so the segment `Leads` is not made" in mappings.warnings[0]


def test_a_directory_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no such directory"):
        load_mappings(tmp_path / "nowhere")


def test_a_file_with_a_name_that_nobody_reads_is_an_error(problems, tmp_path):
    assert problems(stage="version: 1\n") == [
        "stage.yaml, line 1: no file of this name is read; did you mean `stages.yaml`?"
    ]
    (tmp_path / "stage.yaml").rename(tmp_path / "Stages.YAML")
    assert problems() == ["Stages.YAML, line 1: no file of this name is read; did you mean `stages.yaml`?"]


@pytest.mark.parametrize("name", ["scoring.yaml.txt", "Scoring.yml.TXT", "scoring.YML"])
def test_a_file_that_an_editor_named_otherwise_is_an_error(problems, tmp_path, name):
    """Windows hides the ending, so that the packaged scoring would count without anybody noticing."""
    (tmp_path / name).write_text("version: 1\n", encoding="utf-8")
    assert problems() == [f"{name}, line 1: no file of this name is read; did you mean `scoring.yaml`?"]


@pytest.mark.parametrize("name", ["scoring.yaml.bak", "scoring.yaml~", ".scoring.yaml.swp", "notes.txt", "tests"])
def test_backups_and_notes_are_left_alone(rules, tmp_path, name):
    (tmp_path / name).write_text("nothing", encoding="utf-8")
    assert rules(stages=stages("{tag: a}")).stages.stages[0].name == "S0"


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path):
    (tmp_path / "stages.yaml").mkdir()
    with pytest.raises(
        ConfigError, match=r"one problem:\n.*stages\.yaml, line 1: this cannot be read: Is a directory$"
    ):
        load_mappings(tmp_path)


def test_a_key_left_blank_has_its_default(rules):
    assert rules(validation="version: 1\nappend:\n  # firstname: firstname\n").validation.append == {}


def test_a_key_left_blank_has_its_default_however_deep(rules):
    blank = "{name: A, on: page.hit, points: 1, where: , unless: , at_most: , per: , once: }"
    mappings = rules(
        stages="version: 1\nstages: [{stage: Ghost, kind: ghost, weight: 10, sticky: , when: }]\nloop_guard: {within: }\n",
        fields="version: 1\n",
        scoring=f"version: 1\ngroups:\n  fit:\n  interest: [{blank}]\npush:\n  to:\n  groups:\nhot: {{when: {{score: fit, gte: 1}}, until: }}\n",
        actions="version: 1\non: [{become: hot, name: , do: {tags: , dnc: {add: }, note: , segments: {add: [vip]}}}]\nnotify: {max_per_run: }\n",
        identity="version: 1\nkeys: {email: , user: {field: }}\nmerge: {strategy: }\n",
    )
    assert mappings.scores.groups == ("fit", "interest")
    (rule,) = mappings.scores.rules
    assert (rule.at_most, rule.per, rule.unless) == (None, None, None)
    assert (mappings.scores.push_to, mappings.scores.push_groups) == ("points", ())
    assert mappings.stages.loop_guard.within == DAY
    assert mappings.identity.merge.strategy == "form"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("scoring", "gropus:\n", "line 2, gropus: there is no key `gropus` here; did you mean `groups`?"),
        ("scoring", "hot: {when: }\n", "line 2, hot.when: `when` takes a map of keys, not nothing"),
        ("fields", "write: {sync_reason: }\n", "line 2, write.sync_reason: `sync_reason` takes text"),
        ("fields", "create_segments: {Leads: }\n", "line 2, create_segments.Leads: `Leads` takes a map of keys"),
    ],
)
def test_what_has_no_default_is_not_left_blank(problems, file, text, told):
    (problem,) = problems(**{file: f"version: 1\n{text}"})
    assert told in problem


def test_words_of_yaml_1_1_are_text(rules):
    mappings = rules(stages=stages("{field: country, in: [NO, SE]}", "{field: answer, is: on}"))
    assert mappings.stages.stages[0].condition.holds(Signals({"country": "Norway"}), 0)
    assert mappings.stages.stages[1].condition.holds(Signals({"answer": "ON"}), 0)


def test_all_that_is_wrong_in_all_files_is_told_at_once(problems):
    told = problems(
        stages=stages("{feild: phone, not_empty: true}", "{kind: lead}") + "takes_ovr: []\n",
        validation="version: 1\nbudget: {per_run: -1}\n",
        fields="version: 1\nwrite: {why: '{resaon}'}\n",
    )
    assert told == [
        "stages.yaml, line 3, stages[0].when.feild: no condition begins with `feild`; did you mean `field`?",
        "stages.yaml, line 4, stages[1].when.kind: the kind follows from the stages: a rule that reads it would swap people for ever; read what they did or are instead",
        "stages.yaml, line 6, takes_ovr: there is no key `takes_ovr` here; did you mean `takes_over`?",
        "validation.yaml, line 2, budget.per_run: `-1` is too small; write 0 or more",
        "fields.yaml, line 2, write.why: there is no placeholder `{resaon}`; did you mean `reason`?",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "stages.yaml, line 1: this file is empty; begin with `version: 1`"),
        ("- a\n", "stages.yaml, line 1: this file is a map of keys, beginning with `version: 1`, not a list"),
        ("stages:\n" + GHOST, "stages.yaml, line 1, version: `version` is missing; begin the file with `version: 1`"),
        ("version: 2\nstages:\n" + GHOST, "stages.yaml, line 1, version: `2` is not one of: 1"),
        ('version: "1"\nstages:\n' + GHOST, 'line 1, version: `"1"` is text because of its quotes; remove them'),
        ("version: true\nstages:\n" + GHOST, "line 1, version: `true` is no version; write `version: 1`"),
        ("version: 1.0\nstages:\n" + GHOST, "line 1, version: `1.0` is no version; write `version: 1`"),
        ("version: 1\n", "stages.yaml, line 1, stages: `stages` is missing; add it"),
        ("version: 1\nstages: []\n", "stages.yaml, line 2, stages: `stages` is empty"),
        ("version: 1\nstages:\n  - [x\n", "stages.yaml, line 4: what is opened in line 3 is not closed"),
        ("version: 1\nversion: 1\nstages:\n" + GHOST, "stages.yaml, line 2, version: `version` stands twice here"),
        (stages(extra="respect_manual: 90\n"), "line 4, respect_manual: `90` is not a length of time"),
        (stages(extra="respect_manual: yes\n"), "line 4, respect_manual: `yes` is not a length of time"),
        (stages(extra="loop_guard: {changes: 0}\n"), "line 4, loop_guard.changes: `0` is too small; write 1 or more"),
        (
            stages(extra="loop_guard: {changes: true}\n"),
            "line 4, loop_guard.changes: `changes` takes a whole number, not `true`",
        ),
        (stages(extra="loop_guard: {within: 0s}\n"), "line 4, loop_guard.within: `0s` is no time at all"),
        (stages(extra="takes_over: Old\n"), "line 4, takes_over: `takes_over` takes a list, like [a, b], not `Old`"),
        (stages(extra="takes_over: [ghost]\n"), "line 4, takes_over[0]: `ghost` is one of the stages above"),
    ],
)
def test_the_form_of_a_file_is_checked(problems, text, told):
    assert any(told in one for one in problems(stages=text)), problems(stages=text)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("{stage: A, kind: lead, weight: 20, when: {tag: a}}|{stage: a, kind: lead, weight: 21, when: {tag: b}}", "line 4, stages[1].stage: there are two stages `a`"),
        ("{stage: A, kind: lead, weight: 20, when: {tag: a}}|{stage: B, kind: lead, weight: 20, when: {tag: b}}", "line 4, stages[1].weight: `B` and `A` both weigh 20"),
        ("{stage: A, kind: lead, weight: 5, when: {tag: a}}", "line 3, stages[0].weight: `A` is a lead and weighs 5, less than a ghost with 10"),
        ("{stage: A, kind: customer, weight: 15, when: {tag: a}}|{stage: B, kind: lead, weight: 20, when: {tag: b}}", "line 3, stages[0].weight: `A` is a customer and weighs 15, less than a lead with 20"),
        ("{stage: A, kind: lead, weight: -1, when: {tag: a}}", "line 3, stages[0].weight: `-1` is too small"),
        ("{stage: A, kind: lead, weight: .nan, when: {tag: a}}", "line 3, stages[0].weight: `weight` takes a whole number, not `nan`"),
        ("{stage: A, kind: lead, weight: 20.5, when: {tag: a}}", "line 3, stages[0].weight: `weight` takes a whole number, not `20.5`"),
        ("{stage: A, kind: leed, weight: 20, when: {tag: a}}", "line 3, stages[0].kind: `leed` is not one of: ghost, lead, customer; did you mean `lead`?"),
        ("{stage: 2024, kind: lead, weight: 20, when: {tag: a}}", "line 3, stages[0].stage: `stage` takes text; put it in quotes"),
        ("{stage: '', kind: lead, weight: 20, when: {tag: a}}", "line 3, stages[0].stage: `stage` is empty"),
        ("{stage: A, kind: lead, weight: 20, sticky: yes, when: {tag: a}}", "line 3, stages[0].sticky: `sticky` takes true or false, not `yes`"),
        ("{stage: A, kind: lead, weight: 20}", "line 3, stages[0]: `A` has no `when`, so no stage below it is ever reached"),
        ("{stage: A, kind: lead, wieght: 20, when: {tag: a}}", "line 3, stages[0].wieght: there is no key `wieght` here; did you mean `weight`?"),
        ("{stage: A, kind: lead, wieght: 20, when: {tag: a}}", "line 3, stages[0].weight: `weight` is missing; add it"),
    ],
)  # fmt: skip
def test_stages_are_checked(problems, lines, told):
    text = "version: 1\nstages:\n" + "".join(f"  - {line}\n" for line in lines.split("|")) + GHOST
    assert any(told in one for one in problems(stages=text)), problems(stages=text)


def test_the_last_stage_takes_everybody_else(problems):
    text = "version: 1\nstages:\n  - {stage: A, kind: lead, weight: 20, when: {tag: a}}\n"
    assert problems(stages=text) == [
        "stages.yaml, line 3, stages[0].when: the last stage takes everybody else, so it has no `when`; remove it, or add a stage below",
        "stages.yaml, line 3, stages[0].kind: the last stage takes everybody of whom nothing is known, so its kind is `ghost`, not `lead`",
    ]


def test_a_kind_without_a_stage_is_fine(rules):
    assert len(rules(stages=f"version: 1\nstages:\n{GHOST}", fields="version: 1\n").stages.stages) == 1


# Rules that would depend on themselves


@pytest.mark.parametrize(
    ("do", "told"),
    [
        *(
            (
                f"{{owner: {{round_robin: [3, {entry}]}}}}",
                f"owner.round_robin[1]: {shown} is no user of Mautic; write an id, like 3, an e-mail address or a name",
            )
            for entry, shown in (
                ("1.5", "`1.5`"),
                ("true", "`true`"),
                ("null", "nothing"),
                ("-1", "`-1`"),
                ("''", "an empty text"),
            )
        ),
        ("{tags: {add: [a, null]}}", "tags.add[1]: an entry of `add` takes text; put it in quotes if it looks like"),
        ("{tags: {remove: ['']}}", "tags.remove[0]: an entry of `remove` is empty"),
        ("{note: ''}", "note: this text is empty; write some, or leave the key out"),
        ("{notify: {to: ['json://a'], text: ' '}}", "notify.text: this text is empty"),
    ],
)
def test_a_wrong_entry_of_an_action_is_one_problem_that_names_its_list(problems, do, told):
    (problem,) = problems(actions=f"version: 1\non:\n  - {{become: hot, do: {do}}}\n")
    assert f"actions.yaml, line 3, on[0].do.{told}" in problem


def test_a_group_called_total_is_refused_and_not_offered(problems):
    found = problems(
        scoring="version: 1\ngroups: {total: [], interest: []}\nlow_value: {when: {score: qqq, lt: 1}}\n",
        actions="version: 1\n",
    )
    assert [one for one in found if "`total` is the sum of all groups; name this one otherwise" in one]
    assert [one for one in found if one.endswith("there is no score `qqq`; known: `total`, `interest`")]


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("{kind: customer}", "the kind follows from the stages"),
        ("{not: {stage: Ghost}}", "`Ghost` is a stage that we set"),
        ("{stage: [Partner, s0]}", "`s0` is a stage that we set"),
        ("{tag: hot}", "actions.yaml sets the tag `hot`"),
        (
            "{any: [{tag: a}, {all: [{tag: email-rejected}]}]}",
            "validation.yaml sets the tag `email-rejected` (on_reject)",
        ),
        ("{field: zb_status, is: valid}", "fields.yaml writes the field `zb_status`"),
        ("{field: email_suggestion, not_empty: true}", "validation.yaml writes the field `email_suggestion` (on_typo)"),
        ("{field: points, gt: 5}", "points are ours to give"),
        ("{segment: hot-leads}", "fields.yaml builds the segment `Hot leads` on what we write"),
        ("{activity: segment.added, where: {segment: Hot leads}}", "fields.yaml builds the segment `Hot leads`"),
    ],
)
def test_a_stage_does_not_read_what_we_write(problems, when, told):
    (problem,) = problems(stages=stages(when))
    assert told in problem
    assert "would swap people for ever" in problem


@pytest.mark.parametrize(
    "when", ["{stage: Partner}", "{field: city, is: Bonn}", "{segment: newsletter}", "{tag: customer}", "{dnc: email}"]
)
def test_a_stage_may_read_what_others_write(rules, when):
    rules(stages=stages(when))


def test_a_stage_does_not_read_a_stage_that_it_takes_over(problems):
    (problem,) = problems(stages=stages("{stage: Partner}", extra="takes_over: [partner]\n"))
    assert "`Partner` is a stage that we replace (takes_over)" in problem


def test_a_stage_does_not_read_a_segment_that_mautic_builds_on_our_stages(rules):
    mappings = rules(stages=stages("{segment: Buyers}"))
    known = replace(MAUTIC, segments={3: "buyers"})
    mappings.bind(known)
    with pytest.raises(
        MappingsError, match=r"line 3, stages\[0\].when.segment: the segment `Buyers` is built in Mautic"
    ):
        mappings.bind(replace(known, stage_segments=frozenset({"buyers"})))


def test_scores_do_not_read_what_they_set(problems):
    scoring = "version: 1\ngroups: {fit: [{name: A, when: {tag: hot}, points: 1}, {name: B, when: {field: points, gt: 1}, points: 1}]}\n"
    assert len(problems(scoring=scoring)) == 2


def test_scores_may_read_a_rejected_address(rules):
    rules(scoring="version: 1\ngroups: {fit: [{name: A, when: {tag: email-rejected}, points: -1}]}\n")


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("{kind: lead}", "groups.fit[0].when.kind: the kind may follow from the score"),
        ("{not: {stage: Lead}}", "groups.fit[0].when.not.stage: `Lead` is a stage that we set"),
        ("{score: total, gte: 1}", "groups.fit[0].when.score: the score `total` follows from rules like this"),
        ("{segment: hot-leads}", "groups.fit[0].when.segment: fields.yaml builds the segment `Hot leads`"),
    ],
)
def test_a_score_does_not_read_what_follows_from_it(problems, when, told):
    (problem,) = problems(scoring=scored(f"{{name: A, when: {when}, points: 1}}"))
    assert told in problem
    assert "would swap people for ever" in problem


def test_what_is_counted_does_not_follow_from_the_score_either(problems):
    rule = "{name: A, on: segment.added, where: {segment: Hot leads}, points: 1}"
    (problem,) = problems(scoring=scored(rule))
    assert "line 3, groups.fit[0].where.segment: fields.yaml builds the segment `Hot leads`" in problem


def test_a_score_may_read_a_stage_that_we_do_not_touch(rules):
    rules(scoring=scored("{name: A, when: {stage: Partner}, points: 1}"))


def test_a_score_reads_nothing_that_stages_set_where_stages_read_scores(rules, problems):
    scoring = scored("{name: A, when: {tag: buyer}, points: 1}", "{name: B, when: {field: why, is: a}, points: 1}")
    files = {
        "scoring": scoring,
        "actions": "version: 1\non: [{enter: {kind: lead}, do: {tags: {add: [buyer]}}}]\n",
        "fields": "version: 1\nwrite: {why: '{kind}'}\n",
    }
    rules(stages=stages("{tag: x}"), **files)
    told = problems(stages=stages("{score: total, gte: 7}"), **files)
    assert [one.split(":")[0] for one in told] == [
        "scoring.yaml, line 3, groups.fit[0].when.tag",
        "scoring.yaml, line 4, groups.fit[1].when.field",
    ]


def test_a_score_does_not_read_a_segment_that_mautic_builds_on_points(rules):
    mappings = rules(
        scoring=scored(
            "{name: A, when: {segment: Buyers}, points: 1}",
            "{name: B, on: segment.added, where: {segment: buyers}, points: 1}",
        )
    )
    known = replace(MAUTIC, segments={3: "buyers"})
    mappings.bind(known)
    with pytest.raises(MappingsError) as caught:
        mappings.bind(replace(known, stage_segments=frozenset({"buyers"})))
    assert [problem.key for problem in caught.value.problems] == [
        "groups.fit[0].when.segment",
        "groups.fit[1].where.segment",
    ]


def test_a_stage_may_read_a_score(rules):
    mappings = rules(
        stages=stages("{score: total, gte: 7}"),
        validation="version: 1\nonly_if: {score: fit, gte: 0}\n",
        fields="version: 1\n",
    )
    assert decide(Signals({}, scores={"total": 7}), mappings.stages, None, 0).stage == "S0"
    assert decide(Signals({}, scores={"total": 6}), mappings.stages, None, 0).stage == "Ghost"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("stages", stages("{score: totel, gte: 7}"), "stages[0].when.score: there is no score `totel`; did you mean `total`?"),
        ("validation", "version: 1\nonly_if: {score: fitt, gte: 7}\n", "only_if.score: there is no score `fitt`; did you mean `fit`?"),
        ("scoring", "version: 1\ngroups: {fitness: []}\nhot: {when: {score: fit, gte: 7}}\n", "hot.when.score: there is no score `fit`; did you mean `fitness`?"),
    ],
)  # fmt: skip
def test_a_score_that_is_read_has_a_group(problems, file, text, told):
    files = {"fields": "version: 1\n", "actions": "version: 1\n", file: text}
    assert any(told in one for one in problems(**files))


def test_a_default_is_not_blamed_for_a_group_that_is_not_there(rules):
    """The packaged actions read the score `fit`; who names groups otherwise need not write actions for it."""
    scoring = "version: 1\ngroups: {suits: [{name: A, when: {tag: a}, points: 1}]}\n"
    (warning,) = rules(scoring=scoring).warnings
    assert ".when.all[0].score: there is no score `fit`, which counts as 0 here" in warning
    assert rules(scoring=scoring, actions="version: 1\n").warnings == ()


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (
            "{activity: page.hit, within: 401d}",
            "when.within: this looks 401d back, but activity is read only 400d back",
        ),
        ("{activity: page.hit, after: -401d}", "when.after"),
        ("{age: 401d}", "when.age"),
        ("{age: , lt: 401d}", "when.lt"),
    ],
)
def test_windows_reach_no_further_back_than_activity(rules, problems, when, told):
    (problem,) = problems(stages=stages(when), fields="version: 1\n")
    assert told in problem
    assert "`pull.history`" in problem
    rules(stages=stages(when), fields="version: 1\n", history_seconds=401 * DAY)
    rules(stages=stages(when), fields="version: 1\n", history_seconds=None)


# validation.yaml


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("policy: {accept: [valid], hold: [Valid]}", "line 2, policy.hold[0]: `Valid` stands under `accept` already"),
        ("policy: {acept: [valid]}", "line 2, policy.acept: there is no key `acept` here; did you mean `accept`?"),
        ("ask_again: {held: [1d, 6h]}", "line 2, ask_again.held[1]: the distances grow: 6h does not come after 1d"),
        ("ask_again: {held: [1d, 1d]}", "the distances grow"),
        ("ask_again: {held: []}", "line 2, ask_again.held: `held` is empty"),
        ("ask_again: {accepted: sometimes}", "line 2, ask_again.accepted: `sometimes` is not a length of time"),
        ("order: [scores desc]", "line 2, order[0]: nobody can be ordered by `scores`; did you mean `score`?"),
        ("order: [score down]", "line 2, order[0]: `score down` ends in asc (smallest first) or desc"),
        ("bulk_above: .inf", "line 2, bulk_above: `bulk_above` takes a whole number, not `inf`"),
        ("budget: {per_day: -5}", "line 2, budget.per_day: `-5` is too small"),
        (
            "append: {state: regoin}",
            "line 2, append.state: ZeroBounce's answer has no field `regoin`; did you mean `region`?",
        ),
        ("append: {email: account}", "line 2, append.email: `email` is not ours to fill"),
        ("append: {State: region}", "is no alias of a field"),
        ("on_reject: {dnc: 1}", "line 2, on_reject.dnc: `dnc` takes true or false, not `1`"),
        ("only_if: {field: consent, is: true, of: 1}", "line 2, only_if.of: there is no key `of` beside `field`"),
        ("only_if: {field: country, in: [XX]}", "line 2, only_if.in: `XX` is no ISO 3166 code"),
    ],
)
def test_validation_is_checked(problems, text, told):
    found = problems(validation=f"version: 1\n{text}\n")
    assert any(told in one for one in found), found


def test_a_status_that_zerobounce_is_not_known_to_send_is_a_warning(rules):
    (warning,) = rules(validation="version: 1\npolicy: {hold: [catchall]}\n").warnings
    assert warning.endswith("policy.hold[0]: ZeroBounce is not known to answer `catchall`; did you mean `catch-all`?")


def test_who_is_asked_may_depend_on_the_kind(rules):
    only_if = rules(validation="version: 1\nonly_if: {kind: ghost}\n").validation.only_if
    assert only_if.holds(Signals({}, kind="ghost"), 0)


# Rules that can never match


@pytest.mark.parametrize(
    ("file", "text", "where", "told"),
    [
        (
            "stages",
            stages("{all: [{verdict: accepted}, {not: {verdict: [accepted, held]}}]}"),
            "line 3, stages[0].when",
            "`{verdict: accepted}` and not `{verdict: [accepted, held]}` exclude each other; did you mean `any`?",
        ),
        (
            "stages",
            stages("{activity: page.hit, after: 2026-05-01, before: 2026-04-01}"),
            "line 3, stages[0].when",
            "it ends before it begins",
        ),
        (
            "validation",
            "version: 1\nonly_if: {any: [{tag: a}, {all: [{field: n, gt: 1}, {field: n, lt: 1}]}]}\n",
            "line 2, only_if.any[1]",
            "`{field: n, gt: 1}` and `{field: n, lt: 1}` exclude each other; did you mean `any`?",
        ),
        (
            "scoring",
            scored("{name: A, when: {all: [{age: 9d}, {age: , lt: 2d}]}, points: 1}"),
            "line 3, groups.fit[0].when",
            "`{age: 9d}` and `{age: , lt: 2d}` exclude each other; did you mean `any`?",
        ),
        (
            "actions",
            "version: 1\non:\n  - {when: {score: fit, gte: 20}, name: top, do: {tags: {add: [top]}}}\n",
            "line 3, on[0].when",
            "with these rules the score `fit` is -50 to 15",
        ),
    ],
)
def test_what_never_holds_is_named_and_allowed(rules, file, text, where, told):
    (warning,) = (one for one in rules(**{file: text}).warnings if "never holds" in one)
    assert warning.endswith(f"{file}.yaml, {where}: this never holds: {told}")


def test_decay_of_what_does_not_fade_is_named(rules):
    decay = "decay: {group: fit, half_life: 30d}\n"
    attribute, counted = (
        scored(one, extra=decay)
        for one in ("{name: A, when: {tag: a}, points: 1}", "{name: A, on: page.hit, points: 1}")
    )
    (warning,) = rules(scoring=attribute, actions="version: 1\n").warnings
    assert "decay.group: this does nothing: only points for activity fade, and no rule of `fit` has `on`" in warning
    assert rules(scoring=counted, actions="version: 1\n").warnings == ()


def test_no_score_is_between_two_whole_numbers(rules):
    text = scored("{name: A, when: {tag: a}, points: 1}", extra="low_value: {when: {score: total, is: 0.5}}\n")
    (warning,) = rules(scoring=text, actions="version: 1\n").warnings
    assert warning.endswith("line 5, low_value.when: this never holds: points are whole numbers")


@pytest.mark.parametrize(
    ("on", "unless", "named"),
    [
        ("email.read", "activity: email.read", True),
        ("page.hit, where: {url: 'https://a.example/*'}", "activity: page.hit", True),
        ("page.hit, where: {url: ['*/a/1', '*/A/2']}", "activity: page.hit, where: {url: ['*/a/*', x*]}", True),
        ("page.hit", "activity: page.hit, where: {url: '*'}", False),
        ("page.hit, where: {url: ['*/a', '*/b']}", "activity: page.hit, where: {url: '*/a'}", False),
        ("email.sent", "activity: email.read", False),
    ],
)
def test_a_rule_that_cancels_itself_is_named_and_allowed(rules, on, unless, named):
    mappings = rules(scoring=scored(f"{{name: A, on: {on}, unless: {{{unless}, within: 3d}}, points: 5}}"))
    told = [one for one in mappings.warnings if "groups.fit[0].unless: this never counts" in one]
    assert len(told) == named
    (rule,) = mappings.scores.rules
    if named:
        did = dict.fromkeys((rule.matcher.key, rule.unless.key), (700_000, 1))
        assert score(Signals({}, tallies=did), mappings.scores, 40_000 * DAY).total == 0


def test_a_default_is_not_blamed_for_rules_that_are_not(rules):
    mappings = rules(scoring=scored("{name: A, when: {tag: a}, points: 1}"))
    assert "white-glove" in {rule.name for rule in mappings.action_rules.rules}  # which asks for 8 points of `fit`
    assert mappings.warnings == ()


def test_a_part_of_an_address_is_named_and_allowed(rules):
    (warning,) = rules(scoring=scored("{name: A, on: page.hit, where: {url: /pricing}, points: 1}")).warnings
    assert "scoring.yaml, line 3, groups.fit[0].where.url: whole addresses are compared" in warning
    assert warning.endswith("and none begins with `/pricing`; did you mean `*/pricing*`?")


@pytest.mark.parametrize("url", [".*pricing.*", "%pricing%", "^pricing$", "pricing"])
def test_what_other_programs_write_for_anything_is_no_part_of_the_address_that_is_proposed(rules, url):
    (warning,) = rules(scoring=scored(f"{{name: A, on: page.hit, where: {{url: '{url}'}}, points: 1}}")).warnings
    assert warning.endswith("; did you mean `*pricing*`?")


@pytest.mark.parametrize(("channel", "told"), [("Email", "did you mean `email`?"), ("fax", "known: `email`, `sms`,")])
def test_a_channel_that_mautic_does_not_have_is_named_and_allowed(rules, channel, told):
    (warning,) = rules(scoring=scored(f"{{name: A, when: {{dnc: {channel}}}, points: -1}}")).warnings
    assert f"groups.fit[0].when.dnc: Mautic is not known to have a channel `{channel}`; {told}" in warning


def test_a_rule_of_the_wrong_form_hides_nothing_of_the_others(problems):
    rules = (
        "{name: A, on: page.hit, points: 1.5}, {name: B, on: page.hits, points: 1}, {name: C, on: page.hit, points: 1, per: 7d},"
        " {name: b, on: page.hit, points: 1}"
    )
    found = problems(scoring=f"version: 1\ngroups: {{fit: [{rules}]}}\n")
    assert [one.partition(", line 2, ")[2].partition(":")[0] for one in found] == [
        "groups.fit[0].points", "groups.fit[1].on", "groups.fit[2].per", "groups.fit[3].name",
    ]  # fmt: skip


@pytest.mark.parametrize("scoring", ["groups: {fit: [{name: A}]}", "groups: {fit: [}", "groups: [fit]"])
def test_what_is_wrong_with_scores_is_not_said_of_who_tells_them(problems, scoring):
    told = "version: 1\non: [{become: hot, do: {note: '{score.fit}'}}]\n"
    found = problems(scoring=f"version: 1\n{scoring}\n", actions=told)
    assert found
    assert not [one for one in found if "actions.yaml" in one]


@pytest.mark.parametrize("key", ["when: page.hit", "when: [a]", "on: page.hit, unless: email.read"])
def test_what_is_no_condition_is_told_once(problems, key):
    (problem,) = problems(scoring=f"version: 1\ngroups: {{fit: [{{name: A, {key}, points: 1}}]}}\n")
    assert ": a condition is a map with one subject, like `{tag: vip}`, not " in problem


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("when: {field: company, is: “Acme”}", 'when.is: the quotes of `“Acme”` are part of the text; use straight ones, "Acme",'),
        ("when: {field: company, in: [Acme, „Bcme“]}", "when.in: the quotes of `„Bcme“` are"),
        ("when: {field: company, like: ‘Acme*’}", 'when.like: the quotes of `‘Acme*’` are part of the text; use straight ones, "Acme*"'),
        ("when: {tag: « vip »}", 'when.tag: the quotes of `« vip »` are part of the text; use straight ones, "vip"'),
        ("on: page.hit, where: {url: “*/pricing*”}", 'where.url: the quotes of `“*/pricing*”` are part of the text; use straight ones, "*/pricing*"'),
    ],
)  # fmt: skip
def test_typographic_quotes_are_named_and_allowed(rules, rule, told):
    (warning,) = rules(scoring=scored(f"{{name: A, {rule}, points: 1}}")).warnings
    assert f"scoring.yaml, line 3, groups.fit[0].{told}" in warning


@pytest.mark.parametrize("city", ["’s-Hertogenbosch", "Acme’s", "St. John’s"])
def test_an_apostrophe_is_no_quote(rules, city):
    assert rules(scoring=scored(f"{{name: A, when: {{field: city, is: {city}}}, points: 1}}")).warnings == ()


@pytest.mark.parametrize(
    ("operator", "told"),
    [
        ("is: Deutschland", "is: Mautic's list of countries has no `Deutschland`, so nobody is from there; did you mean `Germany`?"),
        ("is_not: Österreich", "is_not: Mautic's list of countries has no `Österreich`, so nobody is from there; did you mean `Austria`?"),
        ("in: [DE, Schweiz, France]", "in: Mautic's list of countries has no `Schweiz`, so nobody is from there; did you mean `Switzerland`?"),
        ("is: Espana", "is: Mautic's list of countries has no `Espana`, so nobody is from there; did you mean `Spain`?"),
        ("is: Grmany", "is: Mautic's list of countries has no `Grmany`, so nobody is from there; did you mean `Germany`?"),
        ("is: Xqzzy", "is: Mautic's list of countries has no `Xqzzy`, so nobody is from there; write the English name, or the ISO code"),
    ],
)  # fmt: skip
def test_a_country_that_mautic_does_not_know_is_named_and_allowed(rules, operator, told):
    (warning,) = rules(scoring=scored(f"{{name: A, when: {{field: country, {operator}}}, points: 1}}")).warnings
    assert warning.endswith(f"scoring.yaml, line 3, groups.fit[0].when.{told}")


@pytest.mark.parametrize("country", ["Germany", "DE", "deu", "Russian Federation", "UK", "Holland", "Türkiye"])
def test_a_country_that_mautic_knows_is_not_doubted(rules, country):
    assert rules(scoring=scored(f"{{name: A, when: {{field: country, is: {country}}}, points: 1}}")).warnings == ()


@pytest.mark.parametrize(
    "url", ["*", "*/pricing", "https://shop.example/", "HTTPS://*", "http*", "h*", "*shop*", "app://screen"]
)
def test_what_may_be_a_whole_address_is_not_doubted(rules, url):
    assert not rules(scoring=scored(f'{{name: A, on: page.hit, where: {{url: "{url}"}}, points: 1}}')).warnings


@pytest.mark.parametrize(
    ("written", "least", "most"),
    [
        ("when: {tag: a}, points: 5", 0, 5),
        ("on: page.hit, points: -5, once: true", -5, 0),
        ("on: page.hit, points: 5, at_most: 3", 0, 15),
        ("on: page.hit, points: 5, at_most: 3, per: 7d", 0, MOST_POINTS),
        ("on: page.hit, points: -5", -MOST_POINTS, 0),
    ],
)
def test_a_score_beyond_what_rules_give_is_named(rules, written, least, most):
    def named(when):
        text = scored(f"{{name: A, {written}}}", extra=f"low_value: {{when: {when}}}\n")
        return len(rules(scoring=text, actions="version: 1\n").warnings)

    for name in ("fit", "total"):
        assert [named(f"{{score: {name}, gt: {number}}}") for number in (most - 1, most)] == [0, 1]
        assert [named(f"{{score: {name}, lt: {number}}}") for number in (least + 1, least)] == [0, 1]


def test_no_total_is_beyond_what_all_groups_give_together(rules):
    """Each group ends at a billion points, and so does their sum."""
    groups = "".join(f"  {one}: [{{name: {one}, on: page.hit, points: 1}}]\n" for one in "abc")
    text = f"version: 1\ngroups:\n{groups}hot: {{when: {{score: total, gt: {MOST_POINTS}}}}}\n"
    (warning,) = rules(scoring=text, actions="version: 1\n").warnings
    assert warning.endswith(f"with these rules the score `total` is 0 to {MOST_POINTS}")


def test_a_rule_that_counts_often_gives_more_than_a_million_points(rules):
    """A million is what one rule may give at once; what is counted has no such end."""
    text = scored("{name: A, on: page.hit, points: 100000}", extra="hot: {when: {score: total, gte: 1500000}}\n")
    mappings = rules(scoring=text, actions="version: 1\n")
    assert mappings.warnings == ()
    (rule,) = mappings.scores.rules
    many = score(Signals({}, tallies={rule.matcher.key: (700_000, 20)}), mappings.scores, 40_000 * DAY)
    assert many.total == 2_000_000


# fields.yaml


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("write: {why: '{first.pages}'}", "there is no placeholder `{first.pages}`; did you mean `first.page`?"),
        ("write: {why: '{score.fitt}'}", "there is no placeholder `{score.fitt}`; did you mean `score.fit`?"),
        ("write: {lastname: '{name}'}", "`{name}` is made of `lastname`, so it would grow with every run"),
        ("write: {why: '{reason'}", "line 2, write.why: the braces do not match"),
        ("write: {why: '{reason!r}'}", "a placeholder is a name alone"),
        ("write: {email: '{reason}'}", "line 2, write.email: `email` is not ours to write"),
        ("write: {points: '{score}'}", "line 2, write.points: `points` is not ours to write"),
        ("create: [{alias: a, label: A, type: txt}]", "line 2, create[0].type: `txt` is not one of: text, textarea"),
        ("create: [{alias: a, label: A}, {alias: a, label: B}]", "line 2, create[1].alias: `a` is created twice"),
        ("create: [{alias: 'a b', label: A}]", "`a b` is no alias of a field"),
        ("create_segments: {All: {}}", "line 2, create_segments.All: this takes `stage` or `tag`, and has none of them"),
        ("create_segments: {All: {stage: Ghost, tag: x}}", "this takes `stage` or `tag`, not both"),
        ("create_segments: {All: {stage: Ghosts}}", "line 2, create_segments.All.stage: no stage `Ghosts` is managed here; did you mean `Ghost`?"),
    ],
)  # fmt: skip
def test_fields_are_checked(problems, text, told):
    found = problems(fields=f"version: 1\n{text}\n")
    assert any(told in one for one in found), found


def rendered(rules, template, decision=None, verdict=None):
    mappings = rules(fields=f"version: 1\nwrite: {{why: {json.dumps(template)}}}\n")
    return Templates(mappings.fields.write).render(
        decision or Decision("lead", "Lead", reason="Lead: phone known"), verdict
    )["why"]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{reason}", "Lead: phone known"),
        ("{kind} / {stage}", "lead / Lead"),
        ("{verdict.status}: {verdict.sub_status}", "valid: gold"),
        ("{verdict.at}", "2026-11-12 00:00:00"),
        ("{{plain}}", "{plain}"),
        ("a < b > c", "a b c"),
        ("{score}", None),
        ("Score {score}", "Score 0"),
        ("", None),
    ],
)
def test_templates_are_filled(rules, template, value):
    verdict = Verdict("a@example.com", "valid", "gold", at=1_794_441_600)
    assert rendered(rules, template, verdict=verdict) == value


def test_what_is_not_there_leaves_a_field_empty(rules):
    assert rendered(rules, "{verdict.status}") is None


def test_no_text_is_longer_than_mautic_keeps(rules):
    long = rendered(rules, "{reason}", Decision("lead", "Lead", reason="x" * 500))
    assert len(long) == 191
    assert long.endswith("…")


# scoring.yaml, actions.yaml, identity.yaml


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{name: A, points: 1}", "groups.fit[0]: this takes `when` or `on`, and has none of them"),
        ("{name: A, on: page.hit, when: {tag: a}, points: 1}", "groups.fit[0]: this takes `when` or `on`, not both"),
        ("{name: A, on: page.hits, points: 1}", "groups.fit[0].on: there is no activity `page.hits`; did you mean `page.hit`?"),
        ("{name: A, on: page.hit, points: 0}", "groups.fit[0].points: 0 points change nothing"),
        ("{name: A, on: page.hit, points: .nan}", "groups.fit[0].points"),
        ("{name: A, on: page.hit, points: true}", "groups.fit[0].points"),
        ("{name: A, on: page.hit, points: 1, per: 30d}", "groups.fit[0].per: `per` goes with `at_most`"),
        ("{name: A, on: page.hit, points: 1, at_most: 1, per: 401d}", "groups.fit[0].per: this looks 401d back"),
        ("{name: A, on: page.hit, points: 1, at_most: 1, once: true}", "groups.fit[0].once: `once` already says how often"),
        ("{name: A, when: {tag: a}, points: 1, where: {url: x}}", "groups.fit[0].where: `where` counts activity"),
        ("{name: A, on: page.hit, where: {uri: x}, points: 1}", "groups.fit[0].where.uri: `where` knows no `uri`; did you mean `url`?"),
        ('{name: A, on: page.hit, points: "5"}', 'groups.fit[0].points: `"5"` is text because of its quotes; remove them'),
        ('{name: A, on: page.hit, points: 1, once: "true"}', 'groups.fit[0].once: `"true"` is text because of its quotes'),
        ("{name: A, on: page.hit, points: 010}", "groups.fit[0].points: `points` takes a whole number, not `010`"),
        ("{name: A, on: page.hit, points: 1.0}", "groups.fit[0].points: `points` takes a whole number, not `1.0`"),
        ("{name: A, on: page.hit, points: .inf}", "groups.fit[0].points: `points` takes a whole number, not `inf`"),
        ("{name: A, on: page.hit, points: 1000001}", "groups.fit[0].points: `1000001` is too large; write 1000000 or less"),
        ("{name: A, on: page.hit, points: -1000001}", "groups.fit[0].points: `-1000001` is too small; write -1000000 or more"),
        ("{name: A, on: page.hit, points: 1, at_most: 0, per: 1d}", "groups.fit[0].at_most: `0` is too small; write 1 or more"),
        ("{name: A, on: page.hit, points: 1, at_most: -3, per: 1d}", "groups.fit[0].at_most: `-3` is too small"),
        ("{name: A, on: page.hit, points: 1, at_most: 10001}", "groups.fit[0].at_most: `10001` is too large; write 10000 or less"),
        ("{name: A, on: page.hit, points: 1, at_most: 1.5}", "groups.fit[0].at_most: `at_most` takes a whole number"),
        ("{name: A, on: page.hit, points: -200, at_most: 10000}", "groups.fit[0].at_most: 10000 times 200 points are more than 1000000"),
        ("{name: A, on: page.hit, points: 1, at_most: 1, per: 36h}", "groups.fit[0].per: `36h` is not a number of whole days, and points are counted by day; write 2d"),
        ("{name: A, on: page.hit, points: 1, at_most: 1, per: 0d}", "groups.fit[0].per: `0d` is no time at all"),
        ("{name: A, when: {tag: a}, points: 1, once: true}", "groups.fit[0].once: `once` counts activity"),
        ("{name: A, on: page.hit, where: {form: x}, points: 1}", "groups.fit[0].where.form: `page.hit` tells no `form`, so this never matches; known: `url`, `page`"),
        ("{name: A, on: dnc.bounced, where: {email: x}, points: 1}", "groups.fit[0].where.email: `dnc.bounced` tells no `email`, so this never matches; remove `where`"),
        ("{name: A, when: {activity: email.read, where: {form: x}}, points: 1}", "groups.fit[0].when.where.form: `email.read` tells no `form`"),
        ("{name: A, when: {field: n, between: [3, 1]}, points: 1}", "groups.fit[0].when.between: `between` takes the smaller value first"),
        ("{name: A, on: email.sent, unless: {tag: a}, points: 1}", "groups.fit[0].unless: `unless` waits for one activity"),
        ("{name: A, on: email.sent, unless: {any: [{activity: email.read, within: 7d}]}, points: 1}", "groups.fit[0].unless: `unless` waits for one activity"),
        ("{name: A, on: email.sent, unless: {activity: email.read}, points: 1}", "groups.fit[0].unless: `unless` needs `within`"),
        ("{name: A, on: email.sent, unless: {activity: email.read, within: 12h}, points: 1}", "groups.fit[0].unless.within: `12h` is not a number of whole days, and points are counted by day; write 1d"),
        ("{name: A, on: email.sent, unless: {activity: email.read, within: 7d, at_least: 2}, points: 1}", "groups.fit[0].unless.at_least: `unless` looks for one activity; it has no `at_least`"),
        ("{name: A, on: email.sent, unless: {activity: email.read, within: 401d}, points: 1}", "groups.fit[0].unless.within: this looks 401d back"),
        ("{name: A, on: page.hit, points: 1, at_mots: 2}", "groups.fit[0].at_mots: there is no key `at_mots` here; did you mean `at_most`?"),
        ("{name: A, on: page.hit, points: 1, wher: {url: x}}", "groups.fit[0].wher: there is no key `wher` here; did you mean `where`?"),
        ("{name: A, on: page.hit, points: 1, at_most: 2, within: 7d}", "groups.fit[0].within: there is no key `within` here; did you mean `per`?"),
        ("{name: A, on: page.hit, points: 1,5}", "groups.fit[0].5: there is no key `5` here; if it ends the value before it: a number has a point (0.5)"),
        ("{name: A, when: {field: country, in: DE, AT}, points: 1}", "groups.fit[0].when.AT: there is no key `AT` beside `field`; if it ends the value before it: a number has a point (0.5), a list brackets ([a, b])"),
        ("{name: A, when: {field: n, gte: '50,5'}, points: 1}", "groups.fit[0].when.gte: `gte` takes a number, not `50,5`; did you mean `50.5`?"),
        ("{name: A, when: {activity: page.hit, at_least: '3'}, points: 1}", "groups.fit[0].when.at_least: `at_least` takes a whole number, 0 or more, not `3`; remove its quotes"),
        ("{name: A, when: {field: a, empty: 'true'}, points: 1}", "groups.fit[0].when.empty: `empty` is true or false, not `true`; remove its quotes"),
        ("{name: A, when: {tag: a, optional: 'true'}, points: 1}", "groups.fit[0].when.optional: `optional` is true or false, not `true`; remove its quotes"),
        ("{name: A, when: [{tag: a}, {tag: b}], points: 1}", "like `{tag: vip}`, not a list; join several with `all` or `any`"),
        ("{name: A, when: {or: [{tag: a}, {tag: b}]}, points: 1}", "groups.fit[0].when.or: no condition begins with `or`; did you mean `any`?"),
        ("{name: A, when: {fild: a}, points: 1}", "groups.fit[0].when.fild: no condition begins with `fild`"),
        ("{name: A, on: page.hit, unless: {tga: a}, points: 1}", "groups.fit[0].unless.tga: no condition begins"),
    ],
)  # fmt: skip
def test_scoring_is_checked(problems, rule, told):
    found = problems(scoring=f"version: 1\ngroups: {{fit: [{rule}]}}\n")
    assert any(told in one for one in found), found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "decay: {group: intrest}\ngroups: {interest: []}",
            "decay.group: there is no group `intrest`; did you mean `interest`?",
        ),
        (
            "push: {groups: [fti]}\ngroups: {fit: []}",
            "push.groups[0]: there is no group `fti`; did you mean `fit`?",
        ),
        (
            "push: {groups: [fit, fit]}\ngroups: {fit: []}",
            "push.groups[1]: `fit` is named twice; remove one of them",
        ),
        (
            "push: {groups: [fit, Fit]}\ngroups: {fit: [], Fit: []}",
            "push.groups[1]: `fit` and `Fit` would be one point group in Mautic, whose letter case does not count; rename one",
        ),
        (
            "groups: {fit: [{name: A, on: page.hit, points: 1}, {name: a, on: page.hit, points: 2}]}",
            "groups.fit[1].name: there are two rules `a`, in `fit`; points are accounted by name, rename one",
        ),
        (
            "groups: {fit: [{name: A, on: page.hit, points: 1}], interest: [{name: A, on: page.hit, points: 2}]}",
            "groups.interest[0].name: there are two rules `A`, in `fit` and in `interest`",
        ),
        ("groups: {total: []}", "groups.total: `total` is the sum of all groups; name this one otherwise"),
        ("grid: 36h", "grid: `36h` is not a number of whole days"),
        ("grid: 0d", "grid: `0d` is no time at all"),
        ("decay: {group: fit}\ngroups: {fit: []}", "decay: this takes `half_life` or `steps`, and has none of them"),
        (
            "decay: {group: fit, half_life: 9d, steps: [{after: 1d, keep: 0}]}\ngroups: {fit: []}",
            "decay: this takes `half_life` or `steps`, not both",
        ),
        (
            "decay: {group: fit, steps: [{after: 9d, keep: '0,5'}]}\ngroups: {fit: []}",
            "decay.steps[0].keep: `keep` takes a number, not `0,5`; did you mean `0.5`?",
        ),
        (
            "decay: 90d",
            "decay: `decay` takes a map, like {group: interest, half_life: 90d}, or a list of maps, not `90d`",
        ),
        ("decay: {group: fit, half_life: 12h}\ngroups: {fit: []}", "decay.half_life: `12h` is not a number of whole"),
        (
            "decay: {group: fit, half_live: 9d}",
            "decay.half_live: there is no key `half_live` here; did you mean `half_l",
        ),
        (
            "decay: [{group: fit, half_live: 9d}]",
            "decay[0].half_live: there is no key `half_live` here; did you mean `half_l",
        ),
        (
            "decay: [{group: fit, half_life: 9d}, {group: fit, half_life: 9d}]\ngroups: {fit: []}",
            "decay[1].group: `fit` fades twice; each group has one `decay`, remove one",
        ),
        ("decay: {group: fit, steps: []}", "decay.steps: `steps` is empty"),
        (
            "decay: {group: fit, steps: [{after: 9d, keep: 0.5}, {after: 9d, keep: 0.2}]}\ngroups: {fit: []}",
            "decay.steps[1].after: the steps rise: 9d does not come after 9d",
        ),
        (
            "decay: {group: fit, steps: [{after: 9d, keep: 0.5}, {after: 10d, keep: 0.5}]}\ngroups: {fit: []}",
            "decay.steps[1].keep: points only fade: 0.5 is not less than 0.5",
        ),
        ("decay: {group: fit, steps: [{after: 9d, keep: 1}]}", "`1` is too large; write less than 1"),
        ("decay: {group: fit, steps: [{after: 9d, keep: -0.1}]}", "`-0.1` is too small; write 0"),
        ("decay: {group: fit, steps: [{after: 9d, keep: .nan}]}", "takes a finite number, not `nan`"),
        ("decay: {group: fit, steps: [{after: 9d, keep: true}]}", "`keep` takes a number, not `true`"),
        ("hot: {when: {score: totl, gte: 7}}", "hot.when.score: there is no score `totl`; did you mean `total`?"),
        ("hot: {until: {score: total, lt: 7}}", "hot.when: `when` is missing"),
        ("start: later", "start: `later` is not one of: auto, history, now"),
    ],
)
def test_the_rest_of_scoring_is_checked(problems, text, told):
    found = problems(scoring=f"version: 1\n{text}\n")
    assert any(told in one for one in found), found


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("page_hit", "page.hit"),
        ("pagehit", "page.hit"),
        ("email-read", "email.read"),
        ("formsubmit", "form.submitted"),
        ("Form Submitted", None),
        ("Order Completed", None),
        ("product", None),
        ("page", None),
    ],
)
def test_an_event_spelt_nearly_like_an_activity_is_named_and_allowed(rules, name, meant):
    extra = f"low_value: {{when: {{not: {{activity: {name}}}}}}}\n"
    warnings = rules(scoring=scored(f"{{name: A, on: {name}, points: 1}}", extra=extra)).warnings
    told = f"a name without a dot is an event of the intake, spelt exactly so; did you mean `{meant}`?"
    assert [one.partition("scoring.yaml, ")[2] for one in warnings] == (
        [] if meant is None else [f"line 5, low_value.when.not.activity: {told}", f"line 3, groups.fit[0].on: {told}"]
    )


def test_a_list_of_decays_and_steps_are_read(rules):
    text = "decay: [{group: fit, steps: [{after: 30d, keep: 0.5}, {after: 2w, keep: 0}]}]\n".replace("2w", "9w")
    assert rules(scoring=scored(extra=text)).scores.decay == {"fit": Decay(None, ((30, 0.5), (63, 0.0)))}


def test_scores_count_what_their_rules_say(rules):
    rule = "{name: A, on: email.sent, where: {email: News*}, unless: {activity: email.read, within: 7d}, points: -1, at_most: 5, per: 4w}"
    mappings = rules(scoring=scored(rule, "{name: B, on: page.hit, points: 2, once: true}", extra="grid: 2d\n"))
    first, second = mappings.scores.rules
    assert (first.group, first.points, first.at_most, first.per, first.waits) == ("fit", -1, 5, 28, 7)
    assert (second.at_most, second.per, second.unless) == (1, None, None)
    assert mappings.scores.grid == 2
    assert [matcher.type for matcher in mappings.score_matchers] == ["email.sent", "email.read", "page.hit"]
    assert {"email.sent", "email.read", "page.hit"} <= mappings.activity_types


def test_evidence_is_kept_for_conditions_of_scores_and_flags_and_days_for_what_they_count(rules):
    mappings = rules(
        stages=stages("{tag: a}"),
        fields="version: 1\n",
        scoring=scored(
            "{name: A, when: {activity: video.hit}, points: 1}",
            "{name: B, on: page.hit, points: 1}",
            extra="hot: {when: {activity: email.click}, until: {activity: email.sent}}\nlow_value: {when: {activity: email.bounced}}\n",
        ),
        actions="version: 1\n",
    )
    for one in (mappings, mappings.bind(MAUTIC)):
        assert {matcher.type for matcher in one.matchers} == {"video.hit", "email.click", "email.sent", "email.bounced"}
        assert {matcher.type for matcher in one.score_matchers} == {"page.hit"}


def test_what_mautic_lacks_for_a_score_is_told(rules):
    mappings = rules(
        stages=stages("{tag: a}"),
        fields="version: 1\n",
        scoring=scored(
            "{name: A, when: {field: orders, gt: 1}, points: 1}",
            "{name: B, on: form.submitted, where: {form: Signup}, points: 1}",
            "{name: C, on: email.sent, unless: {activity: email.read, where: {email: News}, within: 1d}, points: 1}",
            "{name: D, when: {field: other, gt: 1, optional: true}, points: 1}",
            extra="hot: {when: {segment: vip}, until: {segment: cold}}\nlow_value: {when: {campaign: Out}}\n",
        ),
    )
    with pytest.raises(MappingsError) as caught:
        mappings.bind(MAUTIC)
    assert sorted((problem.line, problem.key) for problem in caught.value.problems) == [
        (3, "groups.fit[0].when.field"),
        (4, "groups.fit[1].where.form"),
        (5, "groups.fit[2].unless.where.email"),
        (8, "hot.until.segment"),
        (8, "hot.when.segment"),
        (9, "low_value.when.campaign"),
    ]
    known = replace(
        MAUTIC,
        fields={**MAUTIC.fields, "orders": "number"},
        segments={1: "vip", 2: "cold"},
        campaigns={1: "Out"},
        forms={1: "Signup"},
        emails={1: "News"},
    )
    bound = mappings.bind(known)
    assert {"orders"} <= bound.fields_read(known)
    assert {"segments", "campaigns", "forms", "emails"} <= bound.catalogues_needed
    assert score(Signals({"orders": 2, "other": 2}), bound.scores, 0).total == 1  # this Mautic has no `other`


def test_the_packaged_scores_suit_a_mautic_without_custom_fields():
    bound = load_mappings(None).bind(MAUTIC)
    assert score(Signals({"country": "DE"}), bound.scores, 0).groups == {"fit": 5, "interest": 0}
    assert load_mappings(None).reads_idle


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("{do: {note: x}}", "on[0]: this takes `enter` or `leave` or `become` or `when`, and has none of them"),
        (
            "{become: hott, do: {note: x}}",
            "on[0].become: `hott` is not one of: hot, cold, low_value, not_low_value; did you mean `hot`?",
        ),
        ("{become: hot}", "on[0].do: `do` is missing"),
        ("{when: {tag: a}, do: {note: x}}", "on[0]: an action with `when` needs a `name`"),
        (
            "{enter: {stage: Leed}, do: {note: x}}",
            "on[0].enter.stage: no stage `Leed` is managed here; did you mean `Lead`?",
        ),
        (
            "{leave: {stage: Leed}, do: {note: x}}",
            "on[0].leave.stage: no stage `Leed` is managed here; did you mean `Lead`?",
        ),
        ("{leave: {}, do: {note: x}}", "on[0].leave: this takes `kind` or `stage`, and has none of them"),
        ("{enter: {kind: lead}, leave: {kind: ghost}, do: {note: x}}", "on[0]: this takes `enter` or `leave`"),
        ("{enter: {kind: lead, stage: Lead}, do: {note: x}}", "on[0].enter: this takes `kind` or `stage`, not both"),
        ("{become: hot, do: {tags: {add: [a], remove: [a]}}}", "on[0].do.tags: `a` is added and removed at once"),
        (
            "{become: hot, do: {note: '{reasns}'}}",
            "on[0].do.note: there is no placeholder `{reasns}`; did you mean `reasons`?",
        ),
        ("{become: hot, do: {note: '{firstname}'}}", "no placeholder `{firstname}`; did you mean `name`?"),
        ("{become: hot, do: {}}", "on[0].do: this does nothing; say what is to be done"),
        ("{become: hot, do: {tags: {add: []}, note: }}", "on[0].do: this does nothing; say what is to be done"),
        ("{become: hot, do: {notes: x}}", "on[0].do.notes: there is no key `notes` here; did you mean `note`?"),
        ("{when: {score: fit, gte: x}, name: a, do: {note: x}}", "on[0].when.gte: `gte` takes a number, not `x`"),
        ("{become: hot, do: {dnc: {add: [mail]}}}", "on[0].do.dnc.add[0]: there is no channel `mail`"),
        ("{become: hot, do: {fields: {points: x}}}", "on[0].do.fields.points: `points` is not ours to write"),
        (
            "{become: hot, do: {notify: {to: [sales@example.com], text: x}}}",
            "on[0].do.notify.to[0]: this is no address of Apprise, which begins with its service",
        ),
        ("{become: hot, do: {tags: {add: [-a]}}}", "on[0].do.tags.add[0]: `-a` begins with `-`"),
        (
            "{become: hot, do: {note: '{score.fid}'}}",
            "there is no placeholder `{score.fid}`; did you mean `score.fit`?",
        ),
        (
            "{when: {tag: vip}, name: a, do: {tags: {remove: [vip]}}}",
            "on[0].when.tag: actions.yaml sets the tag `vip`: a rule that reads it would swap people for ever",
        ),
    ],
)
def test_actions_are_checked(problems, action, told):
    found = problems(actions=f"version: 1\non:\n  - {action}\n")
    assert any(told in one for one in found), found


def test_a_field_that_is_kept_is_none_for_an_action(rules):
    """The next run would put back what fields.yaml says, and nobody would know why."""
    (warning,) = rules(
        actions="version: 1\non:\n  - {become: hot, do: {fields: {sync_reason: hot, why_hot: '{reasons}'}}}\n"
    ).warnings
    assert "on[0].do.fields.sync_reason: `sync_reason` is kept by fields.yaml" in warning


@pytest.mark.parametrize(
    ("condition", "do", "told"),
    [
        ("{segment: nurture}", "{segments: {add: [Nurture]}}", "changes the members of the segment `nurture`"),
        ("{campaign: Out}", "{campaigns: {remove: [out]}}", "changes the members of the campaign `Out`"),
        ("{dnc: email}", "{dnc: {add: [email]}}", "sets do-not-contact for `email`"),
        ("{field: city, is: x}", "{fields: {city: '{stage}'}}", "writes the field `city`"),
        (
            "{activity: segment.added, where: {segment: nurture}}",
            "{segments: {add: [nurture]}}",
            "adds to the segment `nurture`",
        ),
    ],
)
def test_no_rule_reads_what_an_action_does(problems, condition, do, told):
    actions = f"version: 1\non:\n  - {{become: hot, do: {do}}}\n"
    (told_of_stages,) = problems(stages=stages(condition), fields="version: 1\n", actions=actions)
    assert f"actions.yaml {told}: a rule that reads it would swap people for ever" in told_of_stages
    told_of_scores = problems(
        stages=stages("{tag: a}"),
        fields="version: 1\n",
        actions=actions,
        scoring=scored(f"{{name: A, when: {condition}, points: 1}}", extra="hot: {when: {score: fit, gte: 1}}\n"),
    )
    assert any(told in one for one in told_of_scores), told_of_scores


HOT_BY_SCORE = "hot: {when: {score: total, gte: 5}}\n"


@pytest.mark.parametrize(
    ("counted", "do", "told"),
    [
        ("on: campaign.added, where: {campaign: Welcome}", "campaigns: {add: [welcome]}", "adds to the campaign `welcome`"),
        ("on: campaign.added", "campaigns: {add: [Welcome]}", "adds to the campaign `Welcome`"),
        ("on: campaign.event, where: {campaign: 'W*'}", "campaigns: {add: [Welcome]}", "adds to the campaign `Welcome`"),
        ("on: campaign.removed", "campaigns: {remove: [Out]}", "removes from the campaign `Out`"),
        ("on: segment.added", "segments: {add: [vip]}", "adds to the segment `vip`"),
        ("on: segment.added, where: {segment: very-*}", "segments: {add: [Very important]}", "adds to the segment `Very important`"),
        ("on: segment.removed, where: {segment: [a, 'v*']}", "segments: {remove: [vip]}", "removes from the segment `vip`"),
        ("on: dnc.manual", "dnc: {add: [email]}", "sets do-not-contact for `email`"),
        ("when: {not: {activity: dnc.manual}}", "dnc: {add: [sms]}", "sets do-not-contact for `sms`"),
        ("on: email.sent, unless: {activity: dnc.manual, within: 7d}", "dnc: {add: [sms]}", "sets do-not-contact for `sms`"),
    ],
)  # fmt: skip
def test_no_score_counts_what_an_action_does_that_it_sets_off(problems, counted, do, told):
    actions = f"version: 1\non:\n  - {{become: hot, do: {{{do}}}}}\n"
    rule = f"{{name: A, {counted}, points: 20}}"
    (problem,) = problems(fields="version: 1\n", actions=actions, scoring=scored(rule, extra=HOT_BY_SCORE))
    assert problem.startswith("scoring.yaml, line 3, groups.fit[0]")
    assert f"actions.yaml {told}: a rule that reads it would swap people for ever" in problem


@pytest.mark.parametrize(
    ("counted", "action"),
    [
        ("on: campaign.added, where: {campaign: Other}", "{become: hot, do: {campaigns: {add: [Welcome]}}}"),
        ("on: campaign.added", "{become: hot, do: {campaigns: {remove: [Welcome]}}}"),
        ("on: segment.removed", "{become: hot, do: {segments: {add: [vip]}}}"),
        ("on: dnc.unsubscribed", "{become: hot, do: {dnc: {add: [email]}}}"),
        ("on: dnc.manual", "{become: hot, do: {dnc: {remove: [email]}}}"),
        ("on: campaign.event", "{enter: {kind: lead}, do: {campaigns: {add: [Welcome]}}}"),
        ("on: campaign.event", "{become: low_value, do: {campaigns: {add: [Welcome]}}}"),
        ("on: campaign.event", "{when: {activity: form.submitted}, name: w, do: {campaigns: {add: [Welcome]}}}"),
    ],
)
def test_a_score_counts_what_does_not_follow_from_it(rules, counted, action):
    rules(
        fields="version: 1\n",
        actions=f"version: 1\non:\n  - {action}\n",
        scoring=scored(f"{{name: A, {counted}, points: 20}}", extra=HOT_BY_SCORE),
    )


def test_a_circle_of_activity_is_found_over_several_actions(rules, problems):
    first = "{become: hot, do: {campaigns: {add: [Welcome]}}}"
    second = "{when: {activity: campaign.event, where: {campaign: Welcome}}, name: b, do: {dnc: {add: [email]}}}"
    files = {
        "fields": "version: 1\n",
        "scoring": scored("{name: A, on: dnc.manual, points: -20}", extra=HOT_BY_SCORE),
    }
    rules(**files, actions=f"version: 1\non: [{second}]\n")
    told = problems(**files, actions=f"version: 1\non: [{first}, {second}]\n")
    assert [one.partition(":")[0] for one in told] == [
        "scoring.yaml, line 3, groups.fit[0]",
        "actions.yaml, line 2, on[1].when.where.campaign",
    ]


def test_a_stage_counts_nothing_that_follows_from_it(problems):
    """Whoever is hot is a lead, by the packaged rules."""
    actions = "version: 1\non:\n  - {become: hot, do: {campaigns: {add: [Sales]}}}\n"
    (problem,) = problems(stages=stages("{activity: campaign.added}"), fields="version: 1\n", actions=actions)
    assert "stages.yaml, line 3, stages[0].when: actions.yaml adds to the campaign `Sales`" in problem


def test_who_joins_any_segment_joins_those_that_mautic_builds_on_what_we_write(rules, problems):
    scoring = scored("{name: A, on: segment.added, points: 1}", extra=HOT_BY_SCORE)
    warnings = rules(scoring=scoring).warnings
    assert ["fields.yaml builds the segment `Hot leads`" in one for one in warnings] == [True, False]
    assert all(one.endswith("name those that are meant under `where`") for one in warnings)
    told = problems(scoring=scoring, fields="version: 1\ncreate_segments: {Hottest: {tag: hot}}\n")
    assert "fields.yaml builds the segment `Hottest` on what we write: a rule that reads it" in told[0]
    rules(scoring=scored("{name: A, on: segment.added, where: {segment: news*}, points: 1}", extra=HOT_BY_SCORE))


def test_a_mautic_without_the_segment_of_an_action_is_warned_of_and_not_refused(rules):
    mappings = rules(
        actions="version: 1\non:\n  - {become: hot, do: {segments: {add: [Nurtur, Hot leads, R&D]}, campaigns: {add: [In]}}}\n"
    )
    there = replace(
        MAUTIC, segments={1: "nurture", 2: "rd"}, segment_names={1: "Nurture", 2: "R&#38;D"}, campaigns={1: "Out"}
    )
    bound = mappings.bind(there)
    assert [told.partition("on[0].do.")[2] for told in bound.warnings] == [
        "segments.add[0]: this Mautic has no segment `Nurtur`; did you mean `nurture`?",
        "campaigns.add[0]: this Mautic has no campaign `In`; known: `Out`",
    ]


def test_a_copy_of_the_default_actions_is_warned_of_no_segment_that_they_leave(rules):
    """`init` copies them for editing: not everybody has a segment `nurture`."""
    default = (packaged_mappings_dir() / "actions.yaml").read_text(encoding="utf-8")
    edited = default.replace("notify: {max_per_run: 20}", "notify: {max_per_run: 10}")
    assert edited != default
    assert "nurture" in edited
    for text in (default, edited):
        assert rules(actions=text).bind(MAUTIC).warnings == rules().bind(MAUTIC).warnings


def test_rules_are_named_by_what_sets_them_off_and_have_keys_of_their_own(rules):
    mappings = rules(
        actions="""version: 1
on:
  - {enter: {stage: lead}, do: {note: a}}
  - {enter: {kind: lead}, do: {note: b}}
  - {leave: {stage: LEAD}, do: {note: l}}
  - {leave: {kind: lead}, do: {note: m}}
  - {become: low_value, do: {note: c}}
  - {become: low_value, do: {note: d}}
  - {when: {tag: a}, name: Größe über alles und noch viel mehr davon, do: {note: e}}
"""
    )
    told = [(rule.name, rule.occasion) for rule in mappings.action_rules.rules]
    assert told[:6] == [
        ("enter lead", "stage:Lead"),
        ("enter lead (2)", "kind:lead"),
        ("leave LEAD", "-stage:Lead"),
        ("leave lead", "-kind:lead"),
        ("become low_value", "low_value"),
        ("become low_value (6)", "low_value"),
    ]
    keys = [rule.key for rule in mappings.action_rules.rules]
    assert len(set(keys)) == 7
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", key) for key in keys)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "merge: {strategy: forms}",
            "merge.strategy: `forms` is not one of: form, fields, report; did you mean `form`?",
        ),
        ("keys: {mail: {}}", "keys.mail: there is no key `mail` here; did you mean `email`?"),
        ("settle: 0m", "settle: `0m` is no time at all"),
        ("caps: {merges_into_one: 0}", "caps.merges_into_one: `0` is too small"),
        ("heal: {dnc: never}", "heal.dnc: `never` is not one of: always"),
    ],
)
def test_identity_is_checked(problems, text, told):
    found = problems(identity=f"version: 1\n{text}\n")
    assert any(told in one for one in found), found


# Binding


def test_what_mautic_lacks_is_told_with_file_line_and_the_nearest_name(rules, tmp_path):
    mappings = rules(
        stages=stages(
            "{field: fone, not_empty: true}",
            "{any: [{segment: newsleter}, {campaign: Onboarding}]}",
            "{activity: form.submitted, where: {form: [Contact, Signupp]}}",
            "{activity: email.click, where: {email: News*}}",
            "{tag: never-seen}",
        ),
        fields="version: 1\nwrite: {wy: '{reason}'}\n",
        validation="version: 1\nappend: {firstnam: firstname}\n",
        identity="version: 1\nkeys: {user: {field: customer_no}}\n",
    )
    with pytest.raises(MappingsError) as caught:
        mappings.bind(replace(MAUTIC, segments={1: "newsletter"}, forms={1: "CONTACT", 2: "Signup"}))
    told = [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert told == [
        "stages.yaml, line 3, stages[0].when.field: this Mautic has no contact field `fone`; did you mean `phone`? If it may be missing, add `optional: true`",
        "stages.yaml, line 4, stages[1].when.any[0].segment: this Mautic has no segment `newsleter`; did you mean `newsletter`? If it may be missing, add `optional: true`",
        "stages.yaml, line 4, stages[1].when.any[1].campaign: this Mautic has no campaign `Onboarding`. If it may be missing, add `optional: true`",
        "stages.yaml, line 5, stages[2].when.where.form: this Mautic has no form `Signupp`; did you mean `Signup`? If it may be missing, add `optional: true`",
        "stages.yaml, line 6, stages[3].when.where.email: this Mautic has no e-mail `News*`. If it may be missing, add `optional: true`",
        "fields.yaml, line 2, write.wy: this Mautic has no contact field `wy`. List it under `create` to have it made",
        "validation.yaml, line 2, append.firstnam: this Mautic has no contact field `firstnam`; did you mean `firstname`?",
        "identity.yaml, line 2, keys.user.field: this Mautic has no contact field `customer_no`",
    ]


def test_a_stage_that_a_condition_names_exists_in_mautic_or_is_made_by_init(rules):
    """A misspelt one would never match, and nobody would notice."""
    partners = replace(MAUTIC, stages={1: "Partner"})
    written = "version: 1\non:\n  - {{when: {{stage: {}}}, name: A, do: {{note: x}}}}\n"
    for right in ("partner", "LEAD", "[Partner, Customer]"):
        rules(actions=written.format(right)).bind(partners)
    mappings = rules(actions=written.format("Partnr"), scoring=scored("{name: D, when: {stage: Partnr}, points: 5}"))
    assert "stages" in mappings.catalogues_needed
    with pytest.raises(MappingsError) as caught:
        mappings.bind(partners)
    told = "this Mautic has no stage `Partnr`; did you mean `Partner`? If it may be missing, add `optional: true`"
    assert [(one.key, one.text) for one in caught.value.problems] == [
        ("groups.fit[0].when.stage", told),
        ("on[0].when.stage", told),
    ]
    with pytest.raises(MappingsError, match="no stage `Leed`; did you mean `Lead`"):
        rules(actions=written.format("Leed"), scoring="version: 1\ngroups: {}\n").bind(partners)
    rules(actions=written.format("Leed, optional: true")).bind(partners)


def test_a_field_that_init_creates_may_be_written_before_it_exists(rules):
    rules(
        fields="version: 1\ncreate: [{alias: why, label: Why}]\nwrite: {why: '{reason}'}\n", validation="version: 1\n"
    ).bind(MAUTIC)


def test_suggestions_are_left_out_with_a_warning_where_mautic_has_no_field_for_them(rules):
    bound = rules(fields="version: 1\n", validation="version: 1\non_typo: {field: suggestion}\n").bind(MAUTIC)
    assert bound.validation.typo_field is None
    assert "this Mautic has no contact field `suggestion`" in bound.warnings[0]


def test_the_fingerprint_follows_what_the_rules_mean(rules):
    first = rules(stages=stages("{tag: a}"), fields="version: 1\n")
    assert rules(stages="# a comment\n" + stages("{ 'tag':   a }")).fingerprint == first.fingerprint
    assert rules(stages=stages("{tag: b}")).fingerprint != first.fingerprint
    assert load_mappings(None, time_zone="Europe/Berlin").fingerprint != load_mappings(None).fingerprint


def test_the_fingerprint_follows_what_mautic_has_of_what_the_rules_read(rules):
    mappings = rules(
        stages=stages("{field: n, gt: 0, optional: true}"), fields="version: 1\n", validation="version: 1\n"
    )
    without = mappings.bind(MAUTIC)
    assert mappings.bind(MAUTIC).bind(MAUTIC).fingerprint == without.fingerprint
    with_n = mappings.bind(replace(MAUTIC, fields={**MAUTIC.fields, "n": "number"}))
    assert with_n.fingerprint != without.fingerprint
    other = mappings.bind(replace(MAUTIC, fields={**MAUTIC.fields, "other": "number"}))
    assert other.fingerprint == without.fingerprint
    assert with_n.bind(MAUTIC).fingerprint == without.fingerprint


def test_matchers_do_not_depend_on_the_mautic(rules):
    mappings = load_mappings(None)
    assert mappings.bind(MAUTIC).matchers == mappings.matchers


def test_days_follow_the_time_zone(tmp_path):
    (tmp_path / "stages.yaml").write_text(stages("{field: day, after: 2026-11-12}"), encoding="utf-8")
    (tmp_path / "fields.yaml").write_text("version: 1\n", encoding="utf-8")
    in_berlin = load_mappings(tmp_path, time_zone="Europe/Berlin")
    late = Signals({"day": "2026-11-12 23:30:00"})
    known = replace(MAUTIC, fields={**MAUTIC.fields, "day": "datetime"})
    for mappings in (in_berlin, in_berlin.bind(known)):
        assert decide(late, mappings.stages, None, 0).stage == "S0"


def test_a_verdict_decides_by_the_packaged_rules():
    mappings = load_mappings(None)
    signal = mappings.validation.signal(Verdict("a@example.com", "valid", "", at=1_000), 2_000)
    assert isinstance(signal, VerdictSignal)
    lead = decide(Signals({"email": "a@example.com"}, verdict=signal), mappings.stages, None, 2_000)
    assert lead.stage == "Lead"
    assert lead.due_at == 1_000 + 180 * DAY


@pytest.mark.parametrize(
    ("status", "sub_status", "outcome"),
    [
        ("valid", "", "accepted"),
        ("valid", "alias_address", "accepted"),
        ("valid", "accept_all", "held"),
        ("valid", "role_based_accept_all", "held"),
        ("valid", "ai_agent_mailbox", "held"),
        ("catch-all", "", "held"),
        ("unknown", "greylisted", "held"),
        ("invalid", "mailbox_not_found", "rejected"),
        ("invalid", "mailbox_quota_exceeded", "held"),
        ("do_not_mail", "disposable", "rejected"),
        ("spamtrap", "", "rejected"),
        ("abuse", "", "rejected"),
        ("something_new", "", "held"),
    ],
)
def test_the_packaged_policy(status, sub_status, outcome):
    assert load_mappings(None).validation.policy(status, sub_status)[0] == outcome


# JSON Schema


@pytest.mark.parametrize("name", FILES)
def test_the_committed_schemas_are_up_to_date(name):
    committed = packaged_mappings_dir() / "schema" / f"{name}.schema.json"
    assert json.loads(committed.read_text(encoding="utf-8")) == mappings_schema()[name], (
        "run `mautic-sync schema`, or write mappings_schema() to mappings/schema"
    )


@pytest.mark.parametrize("name", FILES)
def test_the_packaged_files_fit_their_schemas_and_name_them(name):
    path = packaged_mappings_dir() / f"{name}.yaml"
    assert path.read_text(encoding="utf-8").startswith(f"# yaml-language-server: $schema=./schema/{name}.schema.json\n")
    schema = mappings_schema()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_yaml(path.read_bytes()).value, schema)


def test_the_schema_refuses_an_unknown_key():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1, "stagse": []}, mappings_schema()["stages"])


def test_the_documents_name_every_key_subject_and_operator():
    """docs/mappings.md and the models agree."""
    from mautic_sync.domain.activity import ACTIVITY_ATTRIBUTES, ACTIVITY_TYPES
    from mautic_sync.domain.grammar import GROUPS, OPERATORS, SUBJECTS
    from mautic_sync.mapping_files import FIELD_PLACEHOLDERS, ZEROBOUNCE_FIELDS

    text = (Path(__file__).parent.parent / "docs" / "mappings.md").read_text(encoding="utf-8")
    keys = set()
    for schema in mappings_schema().values():
        parts = [schema, *(part for name, part in schema.get("$defs", {}).items() if name != "Condition")]
        keys |= {key for part in parts for key in part.get("properties", {})}
    words = {*keys, *GROUPS, *OPERATORS, *SUBJECTS, *ACTIVITY_TYPES, *ACTIVITY_ATTRIBUTES, *ZEROBOUNCE_FIELDS}
    words |= {f"{{{name}}}" for name in FIELD_PLACEHOLDERS}
    assert sorted(word for word in words if f"`{word}`" not in text and f"`{word}:" not in text) == []


def test_every_condition_in_the_documents_can_be_read():
    from mautic_sync.domain.grammar import GROUPS, SUBJECTS, parse_condition

    text = (Path(__file__).parent.parent / "docs" / "mappings.md").read_text(encoding="utf-8")
    found = re.findall(r"`(\{\w+: .*?\})`|^(?:\s*- )?(\{\w+: .*\})(?:\s+#.*)?$", text.replace("\\|", "|"), re.MULTILINE)
    read = 0
    for one in ("".join(pair) for pair in found):
        spec = read_yaml(one.encode()).value
        if isinstance(spec, dict) and next(iter(spec), None) in {*GROUPS, *SUBJECTS} and "…" not in one:
            problems = []
            parse_condition(spec, problems)
            assert problems == [], one
            read += 1
    assert read > 40


# -- what people mean by what they write ------------------------------------------------------------------------------


def test_an_escape_that_yaml_eats_is_no_regular_expression(problems, rules):
    eaten = '{name: A, when: {field: position, matches: "(?i)\\b(ceo)"}, points: 1}'
    (told,) = problems(scoring=scored(eaten))
    assert told == (
        "scoring.yaml, line 3, groups.fit[0].when.matches: `(?i)\\x08(ceo)` has a control character: in double quotes "
        "YAML takes `\\b` for a backspace; use single quotes, or write `\\\\b`"
    )
    kept = "{name: A, when: {field: position, matches: '(?i)\\b(ceo)'}, points: 1}"
    (rule,) = rules(scoring=scored(kept)).scores.rules
    assert rule.condition.holds(Signals({"position": "The CEO"}), 0)


def test_who_means_months_is_told_that_m_is_minutes(problems):
    rule = "{name: A, on: page.hit, points: 1}"
    (told,) = problems(scoring=scored(rule, extra="decay: {group: fit, half_life: 3m}\n"))
    assert told.endswith("write 1d (`m` are minutes; for months write days, like 30d)")
    (told,) = problems(scoring=scored(rule, extra="decay: {group: fit, half_life: 36h}\n"))
    assert told.endswith("write 2d")


def test_a_group_that_is_pushed_and_not_there_is_told_in_one_sentence(problems):
    (told,) = problems(scoring=scored("{name: A, on: page.hit, points: 1}", extra="push: {groups: [fitt]}\n"))
    assert told.endswith(
        "there is no group `fitt`; did you mean `fit`? Only groups of scores go to Mautic's point groups"
    )


def test_points_of_a_group_are_called_its_score(problems):
    actions = "version: 1\non:\n  - {become: hot, do: {note: '{points.fit}'}}\n"
    (told,) = problems(actions=actions)
    assert told.endswith("there is no placeholder `{points.fit}`; did you mean `score.fit`?")


def test_an_item_without_its_dash_is_told(problems):
    text = "version: 1\ngroups:\n  fit:\n    - {name: A, on: page.hit, points: 1}\n    {name: B, on: email.read, points: 1}\n"
    (told,) = problems(scoring=text)
    assert told.startswith("scoring.yaml, line 5: begin this line with `- `, if it is an item of the list above it")


def test_validation_rules_without_a_policy_have_the_packaged_one(rules):
    own = rules(validation="version: 1\nonly_if: {tag: consent}\n")
    assert own.validation.outcomes == load_mappings(None).validation.outcomes
    assert own.validation.policy("valid") == ("accepted", True)
    assert own.warnings == ()
    assert rules(validation="version: 1\npolicy:\n").validation.policy("valid") == ("accepted", True)
