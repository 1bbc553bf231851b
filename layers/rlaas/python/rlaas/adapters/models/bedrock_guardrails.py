"""Guardrails that are Amazon Bedrock's, by ApplyGuardrail: no model is asked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlaas.adapters.models.bedrock import runtime
from rlaas.adapters.models.sagemaker import aws_failures, whole_seconds
from rlaas.policies.guardrails.guardrail import Stage
from rlaas.policies.guardrails.moderation import BedrockService, Judgement, worded


class BedrockGuardrails:
    """Judges by ApplyGuardrail, in one attempt."""

    def judge(self, guardrail: BedrockService, texts: Sequence[str], *, source: Stage) -> Judgement | None:
        """What the guardrail acts on. Raises: BackendFailed, InvalidInput where Bedrock finds fault with the
        request."""
        with aws_failures("Bedrock"):
            answer = runtime(guardrail.region, whole_seconds(guardrail.timeout_s)).apply_guardrail(
                guardrailIdentifier=guardrail.guardrail_id,
                guardrailVersion=guardrail.version,
                source="INPUT" if source == "input" else "OUTPUT",
                content=[{"text": {"text": text}} for text in texts],
            )
            if answer["action"] != "GUARDRAIL_INTERVENED":
                return None
            findings = [*_findings(answer["assessments"])]
        told = [(match, label) for label, action, match in findings if action == "ANONYMIZED" and match]
        return Judgement(
            reasons=tuple(dict.fromkeys(label for label, _, _ in findings)) or ("intervened",),
            found=tuple((match, label.rpartition("/")[2].upper()) for match, label in told),
            must_block=not findings or len(told) < len(findings),  # what is blocked, or masked without saying what, cannot be taken out
        )


def _findings(assessments: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """What each policy of a guardrail found and acted on: its name, `BLOCKED` or `ANONYMIZED`, and the text where that
    is told."""
    for assessment in assessments:
        for policy, lists in assessment.items():
            if not policy.endswith("Policy"):
                continue
            for name, found in lists.items():
                for one in found:
                    if one.get("action", "NONE") != "NONE":
                        called = one.get("name") or one.get("type") or name
                        yield f"{policy.removesuffix('Policy')}/{worded(called)}", one["action"], one.get("match", "")
