"""What goes over the wire: the bodies that the routes read, and the shapes of their answers for the OpenAPI document."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from llm_assets.serving.errors import ApiError

INPUT_LIMIT = 256  # texts a request
EXPLAINED_LIMIT = 8  # texts of a request to explain: each is classified once for each of its words
EXPLAINED_LENGTH = 2000  # characters of such a text
COMMENT_LIMIT = 2000  # characters
REPLY_LIMIT = 2000  # characters of what a model should have said: as many as the log keeps of a text
SESSION_LENGTH = 256  # characters of a session's name


def _is_unicode(text: str) -> str:
    """JSON can spell half of a character (``\\ud800``), which no encoder takes. Raises ``ValueError`` for one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it holds a lone surrogate, which is no character") from error
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]


class ClassifyRequest(BaseModel):
    """vLLM's classify request; fields of its that are not used here are passed over."""

    model: Text = Field(description="the chain that classifies")
    input: Annotated[Text | list[Text], Field(description=f"one text, or up to {INPUT_LIMIT}")]

    def texts(self) -> list[str]:
        """The inputs as a list. Raises ``ApiError`` for none, too many or an empty one."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if len(texts) > INPUT_LIMIT:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input holds {len(texts)} texts, the limit is {INPUT_LIMIT}: send several requests", "input")
        if not texts:
            raise ApiError(HTTPStatus.BAD_REQUEST, "input is an empty list: send at least one text", "input")
        if empty := [index for index, text in enumerate(texts) if not text.strip()]:
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input holds an empty text at index {empty[0]}: leave it out", "input")
        return texts


class ExplainRequest(ClassifyRequest):
    """A classify request whose answer is to be explained."""

    input: Annotated[Text | list[Text], Field(description=f"one text, or up to {EXPLAINED_LIMIT}, each of {EXPLAINED_LENGTH} characters at most")]
    release: Text | None = Field(None, description="whose answer is explained; default: the release that serves")

    def texts(self) -> list[str]:
        """The inputs as a list. Raises ``ApiError`` for none, an empty one, too many or one that is too long."""
        texts = super().texts()
        if len(texts) > EXPLAINED_LIMIT:
            said = f"input holds {len(texts)} texts, {EXPLAINED_LIMIT} can be explained at once: send several requests"
            raise ApiError(HTTPStatus.BAD_REQUEST, said, "input")
        if any(len(text) > EXPLAINED_LENGTH for text in texts):
            raise ApiError(HTTPStatus.BAD_REQUEST, f"input holds a text of more than {EXPLAINED_LENGTH} characters: cut it", "input")
        return texts


class Classification(BaseModel):
    """The answer to one text."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Usage(BaseModel):
    """Tokens read by the model."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class ClassifyAnswer(BaseModel):
    """vLLM's classify response plus ``release``."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: Usage
    release: str


class Piece(BaseModel):
    """A word of a text, or what stands between two."""

    text: str
    weight: float | None = Field(description="what the probability loses without it; null between words")


class Explanation(BaseModel):
    """Which words of one text carried its answer."""

    index: int
    label: str = Field(description="the likeliest; empty where the answer is a number")
    value: float = Field(description="its probability, or the number")
    pieces: list[Piece] = Field(description="in order; put together they are the text")


class ExplainAnswer(BaseModel):
    """An explanation for each input."""

    model: str
    release: str
    data: list[Explanation]


class FeedbackRequest(BaseModel):
    """What a client says of one text's answer; a new vote on it takes the place of the client's older one."""

    id: Text = Field(description="id of the answer")
    index: int = Field(0, ge=0, description="which of its texts")
    rating: Literal["up", "down"] | None = None
    label: Text | None = Field(
        None, max_length=REPLY_LIMIT, description="the right label, one of the model's; of a model that talks, what it should have said"
    )
    comment: Text | None = Field(None, max_length=COMMENT_LIMIT)


class FeedbackAnswer(BaseModel):
    """The vote is on the disk; ``already`` where it stood there word for word."""

    id: str
    index: int
    already: bool


class Model(BaseModel):
    """A chain that is served, alone or with one of its adapters."""

    id: str
    object: Literal["model"]
    owned_by: str
    parent: str | None = Field(description="of an adapter: the model that it is beside")
    created: int = Field(description="seconds since 1970 at which its release was asked for")
    release: str
    task: Literal["classification", "generation"]
    labels: list[str] = Field(description="of a classifier; none where text is generated")
    problem: str = Field(description="single_label, multi_label, regression or generation")
    context: int | None = Field(None, description="tokens of prompt and answer together, where text is generated")


class Models(BaseModel):
    """OpenAI's list of models, with each one's release, labels and problem."""

    object: Literal["list"]
    data: list[Model]


class Alive(BaseModel):
    """The process answers."""

    alive: Literal[True]


class Readiness(BaseModel):
    """Whether every desired chain is served."""

    ready: bool
    chains: dict[str, Any]


class AnnotationTask(BaseModel):
    """A text to label by hand."""

    id: str = Field(description="of the answer")
    index: int
    text: str = Field(description="with personal data masked")
    answered: str = Field(description="the model's label")
    reason: str = Field(description="why it was chosen")


class AnnotatorAgreement(BaseModel):
    """Cohen's kappa of two annotators."""

    annotators: tuple[str, str]
    texts: int = Field(description="that both labelled")
    kappa: float


class AnnotationQueue(BaseModel):
    """A chain's queue as one annotator sees it."""

    chain: str
    labels: list[str]
    problem: str
    tasks: list[AnnotationTask] = Field(description="the next one, of which the annotator has said nothing; none at the end")
    left: int = Field(description="of which the annotator has said nothing")
    annotators: dict[str, int] = Field(description="labels by annotator")
    agreements: list[AnnotatorAgreement]


class AnnotationChains(BaseModel):
    """The chains that have a queue."""

    chains: list[str]


Annotator = Annotated[Text, Field(min_length=1, max_length=64, pattern=r"^\S(.*\S)?$", description="who labels, as claimed")]


class LabelRequest(BaseModel):
    """What an annotator says of a text; a newer label takes the place of the older one."""

    annotator: Annotator
    id: Text = Field(description="id of the answer")
    index: int = Field(0, ge=0, description="which of its texts")
    label: Text | None = Field(description="one of the queue's; null skips the text")
