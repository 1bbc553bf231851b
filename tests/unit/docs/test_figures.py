"""The figures in the guides are those that the committed results have."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
NEVER_H = 336.0
"""The hours of the simulated rollouts, in which some guards never fired."""


def read_figures(name: str) -> dict[str, float]:
    figures: dict[str, float] = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())["figures"]
    return figures


def list_rows(guide: str, cells: int) -> list[list[str]]:
    """The rows of the guide's tables that have so many cells."""
    rows = [line.strip("|").split("|") for line in (ROOT / "docs" / guide).read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if len(row) == cells]


def agrees(text: str, value: float) -> bool:
    """Whether `text`, a number such as `12%`, `1,418`, `0.2`, `<0.1` or `never`, is `value` as far as its digits go."""
    if text == "never":
        return value == NEVER_H
    number, value = text.strip("<%").replace(",", ""), value * (100 if text.endswith("%") else 1)
    if text.startswith("<"):
        return value < float(number)
    decimals = len(number.partition(".")[2])
    return abs(float(number) - value) <= 0.5 * 10.0**-decimals + 1e-9


def test_numbers_agree_as_far_as_their_digits_go() -> None:
    assert all(agrees(*pair) for pair in (("12%", 0.125), ("1,418", 1417.6), ("0.2", 0.24), ("<0.1", 0.04), ("never", 336.0)))
    assert not any(agrees(*pair) for pair in (("12%", 0.126), ("1,418", 1419.0), ("0.2", 0.26), ("<0.1", 0.1), ("never", 335.0)))


def test_the_picture_of_the_readme_is_of_the_committed_demo() -> None:
    figures = read_figures("demo")
    [(before, after)] = re.findall(r"drafts used by agents rise from (\d+%) to (\d+%)", (ROOT / "README.md").read_text())
    assert agrees(before, figures["baseline_send_rate_ratio"])
    assert agrees(after, figures["candidate_send_rate_ratio"])


def test_what_the_guide_says_of_costs() -> None:
    figures = read_figures("cost")
    named = re.findall(r"(\d[\d.,]*)\s(?:USD|in)[^.()`]*\(`(\w+_usd)`\)", (ROOT / "docs/deploy.md").read_text())
    assert len(named) == 4
    assert {name: (text, figures[name]) for text, name in named if not agrees(text, figures[name])} == {}


def test_how_often_a_default_plan_ships() -> None:
    figures = read_figures("decisions")
    rows = [row for row in list_rows("decisions-explained.md", 6) if re.fullmatch(r"[\d,]+", row[0])]
    assert len(rows) == 4
    for day, *shipped, units in rows:
        key = f"{day.replace(',', '')}_a_day_gain"
        assert all(agrees(text, figures[f"shipped_{key}_{gain}"]) for text, gain in zip(shipped, (0, 5, 10, 20), strict=True)), day
        assert agrees(units, figures[f"units_p50_{key}_20"]), day


def test_when_the_guard_fires() -> None:
    figures = read_figures("decisions")
    words = {"fails always": "fails_100", "fails on ": "fails_", "sent ": "send_minus_"}
    rows = [row for row in list_rows("decisions-explained.md", 6) if row[0].startswith(("fails", "sent"))]
    assert len(rows) == 6
    for harm, *cells in rows:
        begin = next(word for word in words if harm.startswith(word))
        key = words[begin] + "".join(re.findall(r"\d+", harm.removeprefix(begin)))
        for cell, a_day in zip(cells, (50, 200, 1000, 5000, 100_000), strict=True):
            [(new, old)] = re.findall(r"^(\S+) \((\S+)\)$", cell)
            hours = f"detection_hours_{key}_at_{a_day}_p50"
            assert (agrees(new, figures[hours]), agrees(old, figures[f"old_{hours}"])) == (True, True), (harm, a_day)


def test_what_one_person_can_do() -> None:
    figures = read_figures("repetition")
    words = {
        "shipped": "ship",
        "taken back": "back",
        "a bandit's share of an equal arm (of two)": "bandit",
        "pairs of a dataset": "dataset",
    }
    rows = [row for row in list_rows("decisions-explained.md", 5) if row[1] in words]
    assert len(rows) == 12
    for threads, what, *cells in rows:
        for cell, people in zip(cells, (3, 30, 300), strict=True):
            [(new, plain)] = re.findall(r"^(\S+) \((\S+)\)$", cell)
            key = f"{words[what]}_{people}_k{threads.replace(',', '')}_ratio"
            assert (agrees(new, figures[key]), agrees(plain, figures[f"plain_{key}"])) == (True, True), (threads, what, people)


def test_what_one_tenants_flood_costs_another() -> None:
    figures = read_figures("fairness")
    words = {"a tenth": "tenth", "a quarter": "quarter", "a half": "half", "all": "open"}
    rows = [row for row in list_rows("security.md", 4) if row[0].partition(",")[0] in words]
    assert len(rows) == 4
    for share, rewards, requests, read in rows:
        key = words[share.partition(",")[0]]
        worst = max(value for name, value in figures.items() if re.fullmatch(rf"{key}_\w+_read_delay_ratio", name))
        assert agrees(rewards, figures[f"{key}_reward_delay_ratio"]), share
        assert agrees(requests, figures[f"{key}_request_delay_ratio"]), share
        assert agrees(read, worst), share
