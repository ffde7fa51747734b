"""A conversation as the text that its model was trained on: the model's own Jinja template, in the sandbox that transformers uses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn, TypedDict

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Message(TypedDict):
    """One turn."""

    role: str
    content: str


class ConversationError(ValueError):
    """A conversation that the model's template does not take."""


class ChatTemplate:
    """A compiled chat template. Raises ``ConversationError`` where it is no Jinja."""

    def __init__(self, source: str, named: dict[str, str]) -> None:
        """``named`` are the special tokens by role, such as ``bos_token``, which templates may write."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda pattern: datetime.now().strftime(pattern)}
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ConversationError(f"the chat template is no Jinja ({error})") from error
        self._named = named

    def render(self, messages: Sequence[Message], answer: bool = True) -> str:
        """The conversation as text, with the opening of the assistant's turn where it is to ``answer``. Raises ``ConversationError``."""
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=answer, **self._named)
        except (TemplateError, TypeError, ValueError) as error:
            raise ConversationError(f"the model's chat template does not take this conversation: {error}") from error


def _refuse(message: Any) -> NoReturn:
    raise TemplateError(str(message))
