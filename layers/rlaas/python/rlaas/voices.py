"""How much of a number one person may make: at most twice an even part, and a fiftieth at least.

Guards, rewards, bandits, reports and datasets count units (threads, users, interactions), and one person has as many
threads as he likes to open. With three agents each may make two thirds of what is counted, so that next to nothing of
their work is lost; with a hundred people or more nobody makes more than a fiftieth: tests that find a difference of
five points in a day would find one person's twentieth. Who takes other names is other people: a user id is worth what
the word of its application is worth.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rlaas.ids import text_sha256

LEAST_SHARE = 0.02
"""What one person may make of a decision's evidence, or of a report, however many there are."""
LEAST_OF_PAIRS = 0.1
"""The same of a dataset: pairs are few, and no test is done on them that a tenth could turn."""
TIMES_EVEN = 2.0
MANY = 20
"""So many people are a sample of all there will be; fewer are all there are, such as a team."""
FREE = 2
"""Units of anybody that count in any case, or nobody could begin. Five in the first minutes were evidence already."""
FREE_A_DAY = 5
"""Those of a day that count wherever his share of all is not made: mornings are not for one person alone."""
_REMEMBERED = 128
"""People counted at a time ("Space-Saving", Metwally, Agrawal & El Abbadi 2005): no count is short, nor over by more
than 1/128 of all."""
_KEPT_A_DAY = 0.8
_FORGOTTEN = 0.5


def person(user_id: str | None, thread_id: str | None, unit: str) -> str:
    """Whose word it is, as 16 hexadecimal digits: the user's; without one the thread's, and without a thread the
    `unit`'s own."""
    kind, name = ("user", user_id) if user_id else ("thread", thread_id) if thread_id else ("unit", unit)
    return text_sha256(f"{kind}:{name}")[:16]


def most_share(people: int, *, least: float = LEAST_SHARE) -> float:
    """The share of a number that one of so many people may make, in [`least`, 1]."""
    return min(1.0, max(least, TIMES_EVEN / max(1, people)))


def cap(counts: Collection[int], *, least: float = LEAST_SHARE) -> float:
    """How much of each person's count counts, so that nobody makes more than `most_share` of what does; infinite where
    nobody would.

    The largest c with c <= share * sum(min(count, c)). O(people * log(people)).
    """
    share, left = most_share(len(counts), least=least), float(sum(counts))
    for over, count in enumerate(sorted(counts, reverse=True)):
        if count * (1 - share * over) <= share * left:
            return share * left / (1 - share * over) if over else float("inf")
        left -= count
    return float("inf")


@dataclass(slots=True)
class Tally:
    """Units heard, in all and by person; of many people those with most."""

    heard: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)

    def within(self, who: str, share: float, *, free: int) -> bool:
        """Whether one unit more of `who` makes no more than `share`, or is one of so many that are free."""
        return self._count(who) + 1 <= max(free, share * (self.heard + 1))

    def add(self, who: str) -> None:
        """One unit more."""
        count = self._count(who)
        if who not in self.counts and len(self.counts) >= _REMEMBERED:
            del self.counts[min(name for name, least in self.counts.items() if least == count)]
        self.counts[who] = count + 1
        self.heard += 1

    def fade(self, factor: float) -> None:
        """Everything is worth `factor` of what it was, and nearly nothing is forgotten."""
        self.heard = round(self.heard * factor, 2)
        self.counts = {who: round(count * factor, 2) for who, count in self.counts.items() if count * factor > _FORGOTTEN}

    def _count(self, who: str) -> float:
        if who in self.counts or len(self.counts) < _REMEMBERED:
            return self.counts.get(who, 0.0)
        return min(self.counts.values())


@dataclass(slots=True)
class Voices:
    """Who was heard so far, unit by unit in the order of decisions: whether one more of somebody's units counts.

    At every moment nobody made more than his share of what was heard until then, and, among `MANY` people, of what was
    heard that day (UTC): evidence of harm starts afresh each day. `before` is how many people there were before it
    began. What was heard fades by a fifth a day, so that who has left makes no room. A person who has made his share is
    silent until the hour (or so many `silence_hours`) ends, which is remembered in `silent` (by such hours, since when,
    in seconds of 1970; some fifty people at most): a unit can be asked about again when its outcome comes.

    It goes by earlier units' people and times, not by arms and outcomes: a unit that counts was dealt by the logged
    chance.
    """

    before: int = 0
    silence_hours: int = 1
    day: int = 0
    ever: Tally = field(default_factory=Tally)
    today: Tally = field(default_factory=Tally)
    silent: dict[int, dict[str, float]] = field(default_factory=dict)
    left_out: int = 0

    def hear(self, who: str, at: datetime) -> bool:
        """Whether this unit of `who` counts; it was decided after all that were asked about before."""
        self._begin(at.astimezone(UTC).date().toordinal())
        people = max(self.before, len(self.ever.counts))
        share = most_share(people)
        if not self.was_heard(who, at):
            self.left_out += 1
            return False
        if not self.ever.within(who, share, free=FREE) or (people >= MANY and not self.today.within(who, share, free=FREE_A_DAY)):
            self.silent.setdefault(self._hours(at), {})[who] = at.timestamp()
            self.left_out += 1
            return False
        self.ever.add(who)
        self.today.add(who)
        return True

    def was_heard(self, who: str, at: datetime) -> bool:
        """What `hear` said of a unit decided `at`; true of units that it was not asked about."""
        since = self.silent.get(self._hours(at), {}).get(who)
        return since is None or at.timestamp() < since

    def forget(self, until: datetime) -> None:
        """Nobody will ask about units decided before `until`."""
        self.silent = {hour: people for hour, people in self.silent.items() if hour >= self._hours(until)}

    def _begin(self, day: int) -> None:
        if day > self.day:
            self.ever.fade(_KEPT_A_DAY ** (day - self.day))
            self.today = Tally()
            self.day = day

    def _hours(self, at: datetime) -> int:
        return int(at.timestamp() // timedelta(hours=self.silence_hours).total_seconds())
