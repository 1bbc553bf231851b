"""The events' stream into the lake."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import stored_event
from rlaas.aws.lake import FirehoseLake
from rlaas.runtime.environment import LakeEnvironment, environment
from rlaas.runtime.streams import BatchResponse, begin_again_at, new_image, records_of


@cache
def lake() -> FirehoseLake:
    """The lake, made on first use."""
    return FirehoseLake(environment(LakeEnvironment).delivery_stream)


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """Deliver every new event; what Firehose keeps refusing is delivered again from the first such event on."""
    inserts = [record for record in records_of(event) if record["eventName"] == "INSERT"]
    refused = lake().deliver([stored_event(new_image(record)) for record in inserts])
    return begin_again_at(inserts[refused[0]]) if refused else {"batchItemFailures": []}
