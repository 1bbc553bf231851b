"""Amazon Bedrock's guardrails, by ApplyGuardrail, which asks no model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlaas.adapters.models.bedrock import runtime
from rlaas.adapters.models.sagemaker import aws_failures, whole_seconds
from rlaas.policies.guardrails.guardrail import GuardrailStage
from rlaas.policies.guardrails.moderation import BedrockService, Judgement, shorten_name


class BedrockGuardrails:
    """Judges texts by ApplyGuardrail, in one attempt."""

    def judge(self, guardrail: BedrockService, texts: Sequence[str], *, source: GuardrailStage) -> Judgement | None:
        """The guardrail's judgement of `texts`; None where it does not act. Raises: BackendFailed, InvalidInput where
        Bedrock refuses the request."""
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
        masked = [(match, label) for label, action, match in findings if action == "ANONYMIZED" and match]
        return Judgement(
            reasons=tuple(dict.fromkeys(label for label, _, _ in findings)) or ("intervened",),
            found=tuple((match, label.rpartition("/")[2].upper()) for match, label in masked),
            must_block=not findings or len(masked) < len(findings),  # a text that is blocked, or masked but not named, cannot be taken out
        )


def _findings(assessments: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Each finding on which a policy of the guardrail acted: its name, `BLOCKED` or `ANONYMIZED`, and the text that
    matched, or "" where Bedrock does not say."""
    for assessment in assessments:
        for policy, lists in assessment.items():
            if not policy.endswith("Policy"):
                continue
            for list_name, findings in lists.items():
                for finding in findings:
                    if finding.get("action", "NONE") != "NONE":
                        name = finding.get("name") or finding.get("type") or list_name
                        yield f"{policy.removesuffix('Policy')}/{shorten_name(name)}", finding["action"], finding.get("match", "")
