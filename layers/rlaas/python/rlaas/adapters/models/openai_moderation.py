"""Guardrails judged by a server with OpenAI's moderation API."""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, Field, ValidationError

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.trace_context import hops_header
from rlaas.adapters.models.vendor_http import VendorHttp, VendorRefused
from rlaas.chat import BackendFailed
from rlaas.policies.guardrails.guardrail import Score
from rlaas.policies.guardrails.moderation import Judgement, ModerationService, shorten_name
from rlaas.wire import MAX_HOPS


class _Result(BaseModel):
    flagged: bool
    categories: dict[str, bool | None]
    category_scores: dict[str, Score | None] = {}


class _Answer(BaseModel):
    results: list[_Result] = Field(min_length=1)


class ModerationServers:
    """Judges all texts by one call, in one attempt."""

    def __init__(self, http: VendorHttp, secrets: VendorKeys) -> None:
        self._http = http
        self._secrets = secrets

    def judge(self, guardrail: ModerationService, texts: Sequence[str], *, tenant_id: str) -> Judgement | None:
        """The categories that the server objects to in any of the texts, the worst first; None where it has no
        objection. Raises: BackendFailed."""
        vendor = "the moderation server"
        headers = hops_header(MAX_HOPS)  # a moderation server has no reason to ask a gateway
        if guardrail.secret is not None:
            key = self._secrets.key(tenant_id, guardrail.secret, base_url=guardrail.base_url, own_host=guardrail.OWN_HOST)
            headers["authorization"] = f"Bearer {key}"
        try:
            content = self._http.whole(
                vendor,
                f"{guardrail.base_url.rstrip('/')}/moderations",
                {"model": guardrail.model, "input": [*texts]},
                headers,
                timeout_s=guardrail.timeout_s,
            )
            results = _Answer.model_validate_json(content).results
        except VendorRefused as refusal:
            raise BackendFailed(f"{vendor} answered {refusal.status}") from None
        except ValidationError:
            raise BackendFailed(f"{vendor} answered in another form than OpenAI's moderation API") from None
        if len(results) != len(texts):
            raise BackendFailed(f"{vendor} was asked about {len(texts)} texts and answered about {len(results)}")
        scores: dict[str, float] = {}
        for result in results:
            for category, score in _objections(result, guardrail.thresholds).items():
                scores[category] = max(score, scores.get(category, 0.0))
        worst = sorted(scores, key=lambda category: -scores[category])
        return Judgement(reasons=tuple(map(shorten_name, worst)), score=scores[worst[0]]) if worst else None


def _objections(result: _Result, thresholds: Mapping[str, float]) -> dict[str, float]:
    """The categories that count, with their scores in [0, 1]: those that reach their thresholds; without thresholds,
    those that the server flags.

    Raises: BackendFailed for a threshold on a category that the server does not know, which would otherwise never
    count.
    """
    scores = {name: score for name, score in result.category_scores.items() if score is not None}
    if thresholds:
        if unknown := thresholds.keys() - scores.keys():
            raise BackendFailed(f"the moderation server has no score of the category {shorten_name(min(unknown))!r}")
        return {name: scores[name] for name, least in thresholds.items() if scores[name] >= least}
    if not result.flagged:
        return {}
    flagged = {name: scores.get(name, 1.0) for name, is_flagged in result.categories.items() if is_flagged}
    return flagged or {"flagged": 1.0}
