"""The admin API as the commands call it, and the options that the commands share."""

from __future__ import annotations

import json
import re
from typing import TypeAlias, cast

import click
import httpx

from rlaas_sdk.configuration import resolve_destination
from rlaas_sdk.errors import NotConfigured

JsonObject: TypeAlias = "dict[str, object]"
_SKILL = re.compile(r"(?=.{1,28}\Z)[a-z0-9]+(-[a-z0-9]+)*")


class AdminService:
    """The admin API below `path`. An answer other than 2xx ends the command with the error in that answer."""

    def __init__(self, path: str, api_url: str | None, api_key: str | None) -> None:
        try:
            url, key = resolve_destination(api_url, api_key)
        except NotConfigured as error:
            raise click.UsageError(str(error)) from None
        self._http = httpx.Client(
            base_url=f"{url}/v1/admin/{path}", headers={"Authorization": f"Bearer {key}"}, timeout=httpx.Timeout(30.0)
        )

    def call(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """The JSON object that the service answers. Raises: click.ClickException."""
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise click.ClickException(f"the service did not answer: {type(error).__name__} {error}") from None
        if response.is_success:
            return cast("JsonObject", response.json())
        try:
            details = response.json()["error"]
            message = f"{details['message']}" + (f" (at {details['param']})" if details.get("param") else "")
        except (ValueError, KeyError, TypeError):
            message = response.text[:300]
        raise click.ClickException(f"{response.status_code}: {message}")


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
