"""Grants: an address and a short-lived bearer token with which any OpenAI client asks one SageMaker model directly."""

import base64
import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rlaas.adapters.aws.lent_sessions import LIFETIME, Statement, lend_session, list_model_arns, sts_client
from rlaas.policies.backend import SageMakerBackend

if TYPE_CHECKING:
    from types_boto3_sts import STSClient

_TOKEN_HOST = "sagemaker.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Grant:
    """`base_url` and `api_key` of an OpenAI client, and when they end."""

    base_url: str
    api_key: str
    expires_at: datetime


class ModelGrants:
    """Grants of the role `role_arn`, each narrowed to one model: with it a caller can ask neither another tenant's
    adapter nor any other model.

    The token is the one that SageMaker's OpenAI-compatible path takes: a presigned CallWithBearerToken.
    """

    def __init__(self, role_arn: str, *, sts: "STSClient | None" = None, runtime_url: str | None = None) -> None:
        self._role_arn = role_arn
        self._sts = sts or sts_client()
        self._region = self._sts.meta.region_name
        # On the laptop cloud all services answer at one address.
        base = runtime_url or os.environ.get("AWS_ENDPOINT_URL")
        self._runtime_url = base or f"https://runtime.sagemaker.{self._region}.amazonaws.com"

    def make(self, backend: SageMakerBackend, *, tenant_id: str, now: datetime) -> Grant:
        """A grant with which `tenant_id` may ask `backend`, for a quarter of an hour from `now`. Raises:
        DependencyUnavailable, InvalidInput as `list_model_arns`."""
        components, path = [], f"endpoints/{quote(backend.endpoint, safe='')}"
        if backend.component is not None:
            components.append(backend.component)
            path += f"/inference-components/{quote(backend.component, safe='')}"
        statements: list[Statement] = [
            {
                "Effect": "Allow",
                "Action": ["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"],
                "Resource": list_model_arns(self._role_arn, self._region, endpoint=backend.endpoint, components=components),
            },
            {"Effect": "Allow", "Action": "sagemaker:CallWithBearerToken", "Resource": "*"},
        ]
        credentials = lend_session(self._role_arn, statements, name=f"grant-{tenant_id}", sts=self._sts)
        return Grant(f"{self._runtime_url}/{path}/openai/v1", _bearer_token(credentials, self._region), now + LIFETIME)


def _bearer_token(credentials: Credentials, region: str) -> str:
    request = AWSRequest("POST", f"https://{_TOKEN_HOST}/", headers={"host": _TOKEN_HOST}, params={"Action": "CallWithBearerToken"})
    SigV4QueryAuth(credentials, "sagemaker", region, expires=int(LIFETIME.total_seconds())).add_auth(request)
    presigned_url = str(request.url).removeprefix("https://") + "&Version=1"
    return f"sagemaker-api-key-{base64.b64encode(presigned_url.encode()).decode()}"
