"""The guardrail of attempts to overrule the prompt."""

from typing import Literal

from rlaas.policies.guardrails.guardrail import Find, RequestGuardrail, RequestTexts, Share


class Injection(RequestGuardrail):
    """Attempts to overrule the prompt: injections, jailbreaks, attempts to read it. By rules; docs/guardrails.md has
    their figures.

    Looks at what users, tools, inputs and documents say, not at system and assistant messages. `threshold` is on the
    rules' score.
    """

    kind: Literal["injection"] = "injection"
    action: Literal["block", "flag"] = "block"
    threshold: Share = 0.5

    def look_at(self, request: RequestTexts) -> Find | None:
        """The strongest signals of the text that looks most like an attack."""
        from rlaas.policies.guardrails.injection_signals import suspicion

        worst = max(map(suspicion, request.untrusted), key=lambda each: each.score, default=None)
        if worst is None or worst.score < self.threshold or not worst.signals:
            return None
        return Find(", ".join(worst.signals[:4]), score=worst.score)
