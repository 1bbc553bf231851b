"""The share that one person may have of what is counted: at most twice an even share, or a fiftieth if that is more.

Guards, rewards, bandits, reports and datasets count units (threads, users, interactions), and one person can open as
many threads as they like. Of three agents each may have two thirds of what is counted, so that almost none of their
work is lost. Of a hundred people or more nobody has more than a fiftieth: a test that finds a difference of five points
in a day would mistake one person's twentieth for a difference. A person with several user ids counts as several people:
it is up to the application that its user ids are right.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rlaas.ids import hash_text

LEAST_SHARE = 0.02
"""The share that one person may always have of a decision's evidence or of a report, however many people there are."""
LEAST_OF_PAIRS = 0.1
"""The same share for datasets: pairs are few, and no test depends on them that a tenth could change."""
TIMES_EVEN = 2.0
MANY = 20
"""From this many people on, they are taken for a sample of more; fewer are taken for all there are, such as a team."""
FREE = 2
"""How many units of a person always count: without them nobody could be the first. Five would be too many, because five
units in the first minutes are already evidence."""
FREE_A_DAY = 5
"""How many units of a person count each day while the person's share of all days is not exceeded: without them the
first person of a day would soon exceed the share of that day."""
_MOST_PEOPLE = 128
"""How many people are counted at a time ("Space-Saving", Metwally, Agrawal & El Abbadi 2005): no count is too low, and
none is too high by more than 1/128 of the total."""
_FADE_A_DAY = 0.8
_LEAST_COUNT = 0.5


def identify_person(user_id: str | None, thread_id: str | None, unit_id: str) -> str:
    """The person behind a unit, as 16 hexadecimal digits: the user; without one the thread, and without a thread the
    unit itself."""
    kind, name = ("user", user_id) if user_id else ("thread", thread_id) if thread_id else ("unit", unit_id)
    return hash_text(f"{kind}:{name}")[:16]


def bound_share(people: int, *, least: float = LEAST_SHARE) -> float:
    """The largest share that one of `people` people may have, in [`least`, 1]."""
    return min(1.0, max(least, TIMES_EVEN / max(1, people)))


def bound_units(counts: Collection[int], *, least: float = LEAST_SHARE) -> float:
    """The most units of one person that count, so that nobody has more than `bound_share` of what counts; infinite
    when nobody has.

    It is the largest c with c <= share * sum(min(count, c)). O(people * log(people)).
    """
    share, left = bound_share(len(counts), least=least), float(sum(counts))
    for over, count in enumerate(sorted(counts, reverse=True)):
        if count * (1 - share * over) <= share * left:
            return share * left / (1 - share * over) if over else float("inf")
        left -= count
    return float("inf")


@dataclass(slots=True)
class PersonCounts:
    """Units that counted: in total (`heard`), and by person; of many people, those with the most."""

    heard: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)

    def within(self, who: str, share: float, *, free: int) -> bool:
        """Whether, with one more unit, `who` has at most the share `share`, or at most `free` units."""
        return self._find_count(who) + 1 <= max(free, share * (self.heard + 1))

    def add(self, who: str) -> None:
        """Count one more unit of `who`."""
        count = self._find_count(who)
        if who not in self.counts and len(self.counts) >= _MOST_PEOPLE:
            del self.counts[min(name for name, least in self.counts.items() if least == count)]
        self.counts[who] = count + 1
        self.heard += 1

    def fade(self, factor: float) -> None:
        """Multiply all counts by `factor`, and forget people whose count becomes very small."""
        self.heard = round(self.heard * factor, 2)
        self.counts = {who: round(count * factor, 2) for who, count in self.counts.items() if count * factor > _LEAST_COUNT}

    def _find_count(self, who: str) -> float:
        if who in self.counts or len(self.counts) < _MOST_PEOPLE:
            return self.counts.get(who, 0.0)
        return min(self.counts.values())


@dataclass(slots=True)
class Voices:
    """Decides unit by unit, in the order of decisions, whether a person's unit counts.

    At no time has anybody more than their share of what counted until then nor, among `MANY` people, of what counted
    that day (UTC): evidence of harm starts afresh each day. `before` is the number of people before the first unit.
    Counts fade by a fifth a day, so that those of people who left soon stop mattering. A unit beyond its person's
    share does not count, and neither do the person's units in the rest of that hour (or period of `silence_hours`
    hours). `silent` remembers by period since when a person is silent, in seconds since 1970 (about fifty people at
    most), so that `was_heard` gives the same answer again when a unit's outcome arrives.

    The decision depends only on the people and times of earlier units, and not on arms and outcomes, so the units that
    count keep the logged probabilities of their arms.
    """

    before: int = 0
    silence_hours: int = 1
    day: int = 0
    ever: PersonCounts = field(default_factory=PersonCounts)
    today: PersonCounts = field(default_factory=PersonCounts)
    silent: dict[int, dict[str, float]] = field(default_factory=dict)
    left_out: int = 0

    def hear(self, who: str, at: datetime) -> bool:
        """Whether this unit of `who`, decided at `at`, counts. Call it in the order of decisions."""
        self._begin_day(at.astimezone(UTC).date().toordinal())
        people = max(self.before, len(self.ever.counts))
        share = bound_share(people)
        if not self.was_heard(who, at):
            self.left_out += 1
            return False
        if not self.ever.within(who, share, free=FREE) or (people >= MANY and not self.today.within(who, share, free=FREE_A_DAY)):
            self.silent.setdefault(self._find_period(at), {})[who] = at.timestamp()
            self.left_out += 1
            return False
        self.ever.add(who)
        self.today.add(who)
        return True

    def was_heard(self, who: str, at: datetime) -> bool:
        """What `hear` returned for a unit decided at `at`; true for units that it was not called for."""
        since = self.silent.get(self._find_period(at), {}).get(who)
        return since is None or at.timestamp() < since

    def forget(self, until: datetime) -> None:
        """Forget what `was_heard` needs for units decided before `until`."""
        self.silent = {hour: people for hour, people in self.silent.items() if hour >= self._find_period(until)}

    def _begin_day(self, day: int) -> None:
        if day > self.day:
            self.ever.fade(_FADE_A_DAY ** (day - self.day))
            self.today = PersonCounts()
            self.day = day

    def _find_period(self, at: datetime) -> int:
        return int(at.timestamp() // timedelta(hours=self.silence_hours).total_seconds())
