"""The guardrail against attempts to overrule the prompt."""

from typing import Literal

from rlaas.policies.guardrails.guardrail import Find, RequestGuardrail, RequestTexts, Score


class Injection(RequestGuardrail):
    """Acts on attempts to overrule the prompt: injections, jailbreaks, attempts to read it. It works by rules;
    docs/guardrails.md says how well.

    It checks what users, tools, inputs and documents say, but not system and assistant messages. It acts from the score
    `threshold` on.
    """

    kind: Literal["injection"] = "injection"
    action: Literal["block", "flag"] = "block"
    threshold: Score = 0.5

    def look_at(self, request: RequestTexts) -> Find | None:
        """The strongest signals in the text that looks most like an attack."""
        from rlaas.policies.guardrails.injection_signals import rate_suspicion

        worst = max(map(rate_suspicion, request.untrusted), key=lambda each: each.score, default=None)
        if worst is None or worst.score < self.threshold or not worst.signals:
            return None
        return Find(", ".join(worst.signals[:4]), score=worst.score)
