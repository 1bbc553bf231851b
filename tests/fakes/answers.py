"""Systems' answers in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaas.evaluation.asking import SystemAnswer, SystemQuestion


@dataclass
class MemoryAnswers:
    entries: list[SystemAnswer] = field(default_factory=list)

    def list_answered(self) -> set[SystemQuestion]:
        return {(answer.row, answer.system) for answer in self.entries}

    def keep(self, answers: Sequence[SystemAnswer]) -> None:
        self.entries += answers
