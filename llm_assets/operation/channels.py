"""Where alerts go: webhooks, e-mail, Slack. Secrets are named in the YAML by their environment variable, never written there."""

from __future__ import annotations

import json
import os
import smtplib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from llm_assets.store.strict import Strict

SECONDS = 10  # that a channel may take


class ChannelError(RuntimeError):
    """A message could not be delivered; says where and why, without the secret."""


class Email(Strict):
    """Alerts by e-mail; off while there is nobody to send to."""

    to: list[str] = Field(default_factory=list, description="addresses")
    sender: str = Field("", description="address")
    host: str = Field("", description="SMTP server")
    port: int = Field(587, ge=1, le=65535, description="its port")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="how the connection is made private")
    user_env: str = Field("", description="environment variable that holds the user's name; empty: none is needed")
    password_env: str = Field("", description="environment variable that holds the password")

    @model_validator(mode="after")
    def _is_whole(self) -> Email:
        if self.to and not (self.sender and self.host):
            raise ValueError("e-mail needs sender and host")
        if bool(self.user_env) != bool(self.password_env):
            raise ValueError("e-mail needs user_env and password_env, or neither")
        return self


class Slack(Strict):
    """Alerts in Slack: through an incoming webhook, or as a bot (`pip install llm-assets[slack]`); off while neither is named."""

    webhook_env: str = Field("", description="environment variable that holds the address of an incoming webhook")
    token_env: str = Field("", description="environment variable that holds a bot's token")
    channel: str = Field("", description="where the bot writes, such as #operations")

    @model_validator(mode="after")
    def _is_whole(self) -> Slack:
        if self.webhook_env and self.token_env:
            raise ValueError("slack needs webhook_env or token_env, not both")
        if self.token_env and not self.channel:
            raise ValueError("slack with token_env needs a channel")
        return self


class Channel(NamedTuple):
    """One way out; ``name`` stays the same while the YAML does."""

    name: str
    send: Callable[[Mapping[str, Any]], None]  # raises ``ChannelError``


def channels(webhooks: list[str], email: Email, slack: Slack) -> Iterator[Channel]:
    """Every channel that the YAML names. A message is an object whose ``message`` is for people, ``kind`` is alert or resolved."""
    for variable in webhooks:
        yield Channel(f"webhook {variable}", lambda message, variable=variable: _post(variable, message))  # type: ignore[misc]
    if email.to:
        yield Channel(f"e-mail {email.host}", lambda message: _mail(email, message))
    if slack.webhook_env:
        yield Channel(f"slack {slack.webhook_env}", lambda message: _post(slack.webhook_env, {"text": message["message"]}))
    if slack.token_env:
        yield Channel(f"slack {slack.channel}", lambda message: _write_as_bot(slack, message))


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ChannelError(f"the environment variable {variable} is not set")
    return value


def _post(variable: str, body: Mapping[str, Any]) -> None:
    """POST a message as JSON to the address in a variable, through the environment's proxy where there is one."""
    address = _secret(variable)
    if not address.startswith(("http://", "https://")):
        raise ChannelError(f"the environment variable {variable} holds no http address")
    data = json.dumps(body, ensure_ascii=False, default=str).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, {"Content-Type": "application/json"}), timeout=SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise ChannelError(f"it answered {error.code}") from None
    except (OSError, ValueError) as error:
        raise ChannelError(f"it cannot be reached ({getattr(error, 'reason', type(error).__name__)})") from None


def _mail(email: Email, message: Mapping[str, Any]) -> None:
    mail = EmailMessage()
    mail["Subject"] = f"[{message['chain']}] {message['kind']}: {message['rule']}"
    mail["From"], mail["To"] = email.sender, ", ".join(email.to)
    mail.set_content(message["message"])
    login = (_secret(email.user_env), _secret(email.password_env)) if email.user_env else None
    connect = smtplib.SMTP_SSL if email.security == "tls" else smtplib.SMTP
    try:
        with connect(email.host, email.port, timeout=SECONDS) as server:
            if email.security == "starttls":
                import ssl

                server.starttls(context=ssl.create_default_context())
            if login:
                server.login(*login)
            server.send_message(mail)
    except smtplib.SMTPException as error:
        raise ChannelError(f"it refused the message ({type(error).__name__})") from None
    except OSError as error:
        raise ChannelError(f"it cannot be reached ({type(error).__name__})") from None


def _write_as_bot(slack: Slack, message: Mapping[str, Any]) -> None:
    try:
        from dagster_slack import SlackResource
        from slack_sdk.errors import SlackApiError
    except ImportError:
        raise ChannelError("dagster-slack is missing: pip install llm-assets[slack]") from None
    client = SlackResource(token=_secret(slack.token_env)).get_client()
    client.timeout = SECONDS
    try:
        client.chat_postMessage(channel=slack.channel, text=message["message"])
    except SlackApiError as error:
        raise ChannelError(f"it answered {error.response['error']}") from None
    except OSError as error:
        raise ChannelError(f"it cannot be reached ({type(error).__name__})") from None
