"""Lambda REQUEST authorizer: turns the key in the Authorization header into a policy for the whole API and the caller's
context."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.api.http import header
from rlaas.clock import utc_now
from rlaas.errors import Unauthorized
from rlaas.runtime.stage import current_stage, import_ahead
from rlaas.tenancy.keys import authenticate

import_ahead("adapters.aws.registry")


def handler(event: Mapping[str, object], _: LambdaContext) -> dict[str, object]:
    """Allow every method and path of this stage (functions check scopes), so that one cached policy serves all of a
    key's calls.

    Raises: Exception with the text `Unauthorized`, to which API Gateway answers 401.
    """
    try:
        key = authenticate(header(event, "Authorization"), keys=current_stage().registry, now=utc_now())
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
