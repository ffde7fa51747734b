from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.operation.channels import ChannelError, Email, Slack, channels
from llm_assets_tests.operation.servers import Mail, Web, running

MESSAGE = {"chain": "tiny", "kind": "alert", "rule": "drift", "message": "tiny alert: drift: 2, 词汇 differ; tiny-1; for team:operations_engineer"}


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Web()
    with running(server):
        monkeypatch.setenv("HOOK", f"{server.url}/T0/secret")
        yield server


@pytest.fixture
def mail() -> Iterator[Mail]:
    server = Mail()
    with running(server):
        yield server


def send(webhooks: list[str] | None = None, email: Email | None = None, slack: Slack | None = None) -> None:
    (channel,) = channels(webhooks or [], email or Email(), slack or Slack())
    channel.send(MESSAGE)


def to(mail: Mail, **changes: object) -> Email:
    settings = {"to": ["a@example.org", "b@example.org"], "sender": "chain@example.org", "host": "127.0.0.1", "port": mail.server_address[1]}
    return Email.model_validate({**settings, "security": "none", **changes})


def test_a_webhook_gets_the_message_and_slack_its_text(web: Web) -> None:
    send(["HOOK"])
    send(slack=Slack(webhook_env="HOOK"))
    assert web.bodies == [MESSAGE, {"text": MESSAGE["message"]}]


def test_a_webhook_that_fails_says_why_and_not_where(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.status = 503
    with pytest.raises(ChannelError, match=r"^it answered 503$"):
        send(["HOOK"])
    with pytest.raises(ChannelError, match="variable NONE is not set"):
        send(["NONE"])
    monkeypatch.setenv("HOOK", "file:///etc/passwd")
    with pytest.raises(ChannelError, match="variable HOOK holds no http address"):
        send(["HOOK"])
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/T0/secret")
    with pytest.raises(ChannelError, match="cannot be reached") as refused:
        send(["HOOK"])
    assert "secret" not in str(refused.value)


def test_an_e_mail_arrives_with_and_without_a_login(mail: Mail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_USER", "operator")
    monkeypatch.setenv("MAIL_PASSWORD", "secret")
    for email in (to(mail), to(mail, user_env="MAIL_USER", password_env="MAIL_PASSWORD")):
        send(email=email)
    read = message_from_bytes(mail.messages[1], policy=policy.default)
    assert read["Subject"] == "[tiny] alert: drift" and read["To"] == "a@example.org, b@example.org"
    assert read.get_content().strip() == MESSAGE["message"]
    monkeypatch.setenv("MAIL_PASSWORD", "wrong")
    with pytest.raises(ChannelError, match="SMTPAuthenticationError"):
        send(email=to(mail, user_env="MAIL_USER", password_env="MAIL_PASSWORD"))
    with pytest.raises(ChannelError, match="SMTPNotSupportedError"):  # never in the clear when asked to be private
        send(email=to(mail, security="starttls"))
    assert len(mail.messages) == 2


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_an_e_mail_goes_through_tls_to_a_server_that_is_trusted_and_to_no_other(mail: Mail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ("-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", *names)
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    mail.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mail.tls.load_cert_chain(certificate, key)
    with pytest.raises(ChannelError, match=r"cannot be reached \(SSLCertVerificationError"):
        send(email=to(mail, security="starttls"))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(email=to(mail, security="starttls"))
    assert mail.private == [True]


def test_slack_through_dagsters_resource(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("slack_sdk.web.client")
    pytest.importorskip("dagster_slack")
    monkeypatch.setattr(sdk.WebClient.__init__, "__defaults__", (None, f"{web.url}/", *sdk.WebClient.__init__.__defaults__[2:]))
    monkeypatch.setenv("SLACK_TOKEN", "xoxb-secret")
    send(slack=Slack(token_env="SLACK_TOKEN", channel="#operations"))
    assert web.bodies == [{"channel": "#operations", "text": MESSAGE["message"]}]


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (Email, {"to": ["a@example.org"]}, "sender and host"),
        (Email, {"user_env": "USER"}, "user_env and password_env, or neither"),
        (Slack, {"webhook_env": "A", "token_env": "B"}, "not both"),
        (Slack, {"token_env": "B"}, "needs a channel"),
    ],
)
def test_half_a_channel_is_an_error_at_load(section: type[Email] | type[Slack], values: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        section.model_validate(values)
    assert list(channels([], Email(), Slack())) == []
