"""Systems' answers in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlaas.evaluation.asking import Answer, Question


@dataclass
class MemoryAnswers:
    entries: list[Answer] = field(default_factory=list)

    def list_answered(self) -> set[Question]:
        return {(answer.row, answer.system) for answer in self.entries}

    def keep(self, answers: Sequence[Answer]) -> None:
        self.entries += answers
