"""The admin API as the commands call it, and the options that the commands share."""

from __future__ import annotations

import json
import re
import time
from typing import TypeAlias, cast

import click
import httpx

from rlaas_sdk.configuration import resolve_destination
from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.failures import describe_failure, describe_response, is_final, read_error
from rlaas_sdk.inference import RETRYABLE_STATUSES
from rlaas_sdk.transport import draw_backoff_s, open_client

_TRIES = 3
JsonObject: TypeAlias = "dict[str, object]"
_SKILL = re.compile(r"(?=.{1,28}\Z)[a-z0-9]+(-[a-z0-9]+)*")


class AdminService:
    """The admin API below `path`. An answer other than 2xx ends the command with the error in that answer."""

    def __init__(self, path: str, api_url: str | None, api_key: str | None) -> None:
        try:
            self._address, key = resolve_destination(api_url, api_key)
            self._http = open_client(key, httpx.Timeout(30.0, connect=5.0))
        except NotConfigured as error:
            raise click.UsageError(str(error)) from None
        self._http.base_url = httpx.URL(f"{self._address}/v1/admin/{path}")

    def call(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """The JSON object that the service answers; what only reads is tried `_TRIES` times. Raises:
        click.ClickException."""
        attempt = 1
        while True:
            try:
                response = self._http.request(method, path, json=body)
            except httpx.RequestError as error:
                why, advice, may_pass = describe_failure(error), f"; is {self._address} the service's address?", not is_final(error)
            else:
                if response.is_success and isinstance(answer := _read_json(response), _Answer):
                    return answer
                why, advice, may_pass = describe_response(response), self._advise(response), response.status_code in RETRYABLE_STATUSES
            if method != "GET" or not may_pass or attempt == _TRIES:
                raise click.ClickException(why + advice)
            click.echo(f"{why}; trying again", err=True)
            time.sleep(draw_backoff_s(attempt))
            attempt += 1

    def _advise(self, response: httpx.Response) -> str:
        if read_error(response) is None:
            return f"; is {self._address} the service's address?"
        return "; check --api-key" if response.status_code in (401, 403) else ""


class _Answer(dict[str, object]):
    """An answer's object. What it lacks ends the command: another service answered, or another version."""

    def __missing__(self, name: str) -> object:
        raise click.ClickException(f"the answer has no {name!r}; is this the service's address, and of this command's version?")


def _read_json(response: httpx.Response) -> object:
    try:
        return response.json(object_hook=_Answer)
    except ValueError:
        return None


def _check_skill(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if not _SKILL.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no skill's name; it is lower-case words joined by hyphens, 28 characters at most")
    return value


def _parse_settings(_context: click.Context, _parameter: click.Parameter, value: str) -> JsonObject:
    try:
        settings = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}") from None
    if not isinstance(settings, dict):
        raise click.BadParameter("it is a JSON object of settings, as the API takes them")
    return settings


settings_option = click.option("--settings", default="{}", callback=_parse_settings, metavar="JSON", help="Settings, as in the API.")


def build_skill_group(name: str, text: str) -> click.Group:
    """A group of commands about one skill. Each command gets the skill's part of the admin API from `get_service`."""

    @click.group(name, help=text)
    @click.option("--skill", required=True, callback=_check_skill, help="The skill.")
    @click.option("--api-url", help="The service's address [env: RLAAS_API_URL].")
    @click.option("--api-key", help="A secret key with the scope admin [env: RLAAS_API_KEY].")
    @click.pass_context
    def commands(context: click.Context, skill: str, api_url: str | None, api_key: str | None) -> None:
        context.obj = AdminService(f"skills/{skill}/", api_url, api_key)

    return commands


def get_service(context: click.Context) -> AdminService:
    """The part of the admin API that is about the command's skill."""
    return cast("AdminService", context.obj)
