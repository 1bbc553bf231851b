"""Lambda REQUEST authorizer: turns the key in the Authorization header (on Anthropic's paths also `x-api-key`) into a
policy for the whole API and the caller's context."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.api.http import header
from rlaas.clock import utc_now
from rlaas.errors import Unauthorized
from rlaas.runtime.stage import current_stage, import_ahead
from rlaas.tenancy.keys import authenticate

import_ahead("adapters.aws.registry")

API_KEY_PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})
"""Where Anthropic's clients may send their key in `x-api-key`. Nowhere else: on the other paths API Gateway remembers
this function's answer by the Authorization header alone."""


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, object]:
    """Allow every method and path of this stage (functions check scopes), so that one cached policy serves all of a
    key's calls.

    Raises: Exception with the text `Unauthorized`, to which API Gateway answers 401.
    """
    try:
        key = authenticate(_credentials(event), keys=current_stage().registry, now=utc_now())
    except Unauthorized:
        raise Exception("Unauthorized") from None
    api_and_stage = "/".join(str(event["methodArn"]).split("/")[:2])
    return {
        "principalId": key.key_id,
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{api_and_stage}/*/*"}],
        },
        "context": {"tenant_id": key.tenant_id, "key_id": key.key_id, "scopes": " ".join(key.scopes), "origins": " ".join(key.origins)},
    }


def _credentials(event: Mapping[str, object]) -> str | None:
    """The Authorization header, or what stands in its place."""
    authorization = header(event, "Authorization")
    if authorization or event.get("resource") not in API_KEY_PATHS:
        return authorization
    key = header(event, "x-api-key")
    return f"Bearer {key}" if key else None
