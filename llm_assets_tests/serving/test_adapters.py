"""Several adapters of one model at once, each asked by its name: one process of llama.cpp, one copy of the weights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from llm_assets.serving.answer import ChatAnswer
from llm_assets.serving.completion_wire import ChatRequest
from llm_assets.serving.engine import EngineError
from llm_assets.serving.generation import Generator
from llm_assets.serving.llama import LlamaError
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import proven, write_desired
from llm_assets_tests.compression.decoders import ENDS
from llm_assets_tests.serving.conftest import eventually
from llm_assets_tests.serving.talking import LONG, decoder, deploy, lora, release, write_model
from llm_assets_tests.serving.test_completions import Served, serving, text_of
from llm_assets_tests.serving.test_generation_rollout import PLAN, state

ADAPTERS = {"one": 1, "two": 2}
MODELS = ("talk", "talk:one", "talk:two")
QUESTIONS = ("怎么退货?", "The weather is fine", "我非常喜欢这个产品", "Thanks! Bye.")
TOKENS = 16


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    deploy(home, 1, adapters=ADAPTERS)
    with serving(home) as served:
        ask(served, "talk", "x", max_tokens=1)  # starts the recorder, which ends with the last of the tests
        yield served


def asked(model: str, question: str, **settings: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0, **settings}


def ask(served: Served, model: str, question: str, **settings: Any) -> Any:
    return served.client.chat.completions.create(**asked(model, question, **settings))


def said(served: Served, model: str, question: str) -> str:
    return str(ask(served, model, question).choices[0].message.content)


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str], str]:
    """What transformers answers greedily over the weights at F16, alone and with PEFT's adapters beside them, unmerged."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llm_assets.training.adapters import beside

    tokenizer = AutoTokenizer.from_pretrained(decoder(0))
    found = {}
    for model in MODELS:
        weights: Any = AutoModelForCausalLM.from_pretrained(decoder(0), dtype=torch.float16).float().eval()
        _, _, adapter = model.partition(":")
        decoding = beside(weights, lora(ADAPTERS[adapter])) if adapter else weights
        for question in QUESTIONS:
            turns = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            with torch.inference_mode():
                ids = decoding.generate(**prompt, max_new_tokens=TOKENS, do_sample=False, eos_token_id=ENDS)[0, prompt["input_ids"].shape[1] :]
            found[model, question] = tokenizer.decode(ids, skip_special_tokens=True)
    return found


def test_each_adapter_answers_as_peft_does_beside_the_weights(served: Served, expected: dict[tuple[str, str], str]) -> None:
    for question in QUESTIONS:
        assert len({expected[model, question] for model in MODELS}) == len(MODELS), "the adapters change nothing"
        for model in MODELS:
            assert said(served, model, question) == expected[model, question]
            assert text_of(ask(served, model, question, stream=True)) == expected[model, question]


def test_no_answer_goes_on_from_what_another_adapter_left_in_a_slot(served: Served, expected: dict[tuple[str, str], str]) -> None:
    """The same question to one model after the other, whose prompts are equal: a cache that is not told apart would mix them."""
    question = QUESTIONS[0]
    likely = likelihood(served, question)
    for model in (*MODELS, *reversed(MODELS), "talk:two", "talk"):
        assert said(served, model, question) == expected[model, question]
        assert likelihood(served, question) == pytest.approx(likely, abs=1e-3)


def likelihood(served: Served, text: str, model: str = "talk") -> list[float]:
    """Of each token of a text but the first."""
    answer: Any = served.client.completions.create(model=model, prompt=text, max_tokens=0, echo=True, logprobs=0)
    return list(answer.choices[0].logprobs.token_logprobs[1:])


def test_requests_of_several_adapters_at_once_do_not_mix(served: Served, expected: dict[tuple[str, str], str]) -> None:
    wanted = [(model, question) for question in QUESTIONS for model in MODELS] * 2

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", http_client=httpx.AsyncClient(trust_env=False)) as client:

            async def one(model: str, question: str, stream: bool) -> str:
                answer: Any = await client.chat.completions.create(**asked(model, question, stream=stream))
                if not stream:
                    return str(answer.choices[0].message.content)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

            return await asyncio.gather(*(one(*each, stream=bool(number % 2)) for number, each in enumerate(wanted)))

    assert asyncio.run(together()) == [expected[each] for each in wanted]


def test_one_process_holds_the_weights_once(served: Served) -> None:
    engines = [child for child in psutil.Process(served.pid).children() if "llm_assets.serving.llama_server" in child.cmdline()]
    [engine] = engines
    mapped = [one for one in engine.memory_maps(grouped=False) if one.path.endswith("model-f16.gguf")]
    assert [(one.perms, one.anonymous) for one in mapped] == [("r--s", 0)], "the file is mapped once, and no page of it is a copy"
    assert [Path(part).name for part in engine.cmdline()[-2:]] == ["adapter-one.gguf", "adapter-two.gguf"]


def test_adapters_are_listed_and_another_is_not_found(served: Served) -> None:
    listed = {model.id: model for model in served.client.models.list()}
    assert tuple(listed) == MODELS
    assert [listed[model].parent for model in MODELS] == [None, "talk", "talk"]  # type: ignore[attr-defined]
    assert {model.release for model in listed.values()} == {"talk-1"}  # type: ignore[attr-defined]
    for wrong in ("talk:three", "talk:", "talk:one:two", "other:one"):
        with pytest.raises(openai.NotFoundError, match="the models here: talk, talk:one, talk:two"):
            ask(served, wrong, "x")


def test_the_log_says_which_and_the_answer_bears_the_name(served: Served) -> None:
    answer = ask(served, "talk:two", "which?", max_tokens=2)
    assert answer.model == "talk:two" and answer.release == "talk-1"
    plain = ask(served, "talk", "which?", max_tokens=2)
    lines = {name: served.line(name) for name in (answer.id, plain.id)}
    assert [lines[answer.id][name] for name in ("chain", "adapter", "release")] == ["talk", "two", "talk-1"]
    assert lines[plain.id]["chain"] == "talk" and "adapter" not in lines[plain.id]
    assert served.http.post("/v1/feedback", json={"id": answer.id, "rating": "up"}).status_code == 200


def test_log_probabilities_of_a_prompt_are_those_of_peft_beside_the_weights(served: Served, tmp_path: Path) -> None:
    """One model after the other and several at once, since which adapter reads a prompt is said to the whole process."""
    text = "The weather is fine, 我非常喜欢这个产品"
    with closing(Generator(write_model(tmp_path, adapters=ADAPTERS), slots=1)) as engine:
        ids = engine.text(text)
    wanted = {model: peft_says(model.partition(":")[2], ids) for model in MODELS}
    assert min(abs(wanted["talk"][0] - wanted[model][0]) for model in MODELS[1:]) > 0.05, "the adapters change nothing"
    for model in (*MODELS, *reversed(MODELS)):
        assert likelihood(served, text, model) == pytest.approx(wanted[model], abs=0.02)

    async def together() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", http_client=httpx.AsyncClient(trust_env=False)) as client:

            async def one(model: str) -> list[float]:
                answer: Any = await client.completions.create(model=model, prompt=text, max_tokens=3, echo=True, logprobs=0)
                return list(answer.choices[0].logprobs.token_logprobs[1 : len(ids)])

            return await asyncio.gather(*map(one, MODELS * 4))

    for model, found in zip(MODELS * 4, asyncio.run(together()), strict=True):
        assert found == pytest.approx(wanted[model], abs=0.02)


def test_who_hangs_up_while_an_adapter_is_set_does_not_have_it_set_over_the_next_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: Generator) -> list[float]:
        began, go_on, sent, ask = asyncio.Event(), asyncio.Event(), list[str](), engine.llama.ask

        async def slowly(path: str, body: Any) -> Any:
            sent.append(path)
            if len(sent) == 1:
                began.set()
                await go_on.wait()
            return await ask(path, body)

        monkeypatch.setattr(engine.llama, "ask", slowly)
        ids = engine.text(QUESTIONS[1])
        gone = asyncio.create_task(engine.likelihood(ids, adapter="one"))
        await began.wait()
        gone.cancel()
        found = asyncio.create_task(engine.likelihood(ids, adapter="two"))
        await asyncio.wait([found], timeout=0.1)
        assert gone.cancelled() and sent == ["/lora-adapters"]
        go_on.set()
        return [one.logprob for one in await found]

    with closing(Generator(write_model(tmp_path, adapters=ADAPTERS), slots=1)) as engine:
        assert asyncio.run(scenario(engine)) == pytest.approx(peft_says("two", engine.text(QUESTIONS[1])), abs=0.02)


def test_a_process_that_was_started_anew_reads_no_prompt_without_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Generator(write_model(tmp_path, adapters=ADAPTERS), slots=1)) as engine:
        ids, ask = engine.text(QUESTIONS[1]), engine.llama.ask

        async def and_dies(path: str, body: Any) -> Any:
            found, pid = await ask(path, body), engine.llama.pid
            if path == "/lora-adapters":
                psutil.Process(pid).kill()
                await asyncio.to_thread(eventually, lambda: engine.llama.pid != pid)
            return found

        monkeypatch.setattr(engine.llama, "ask", and_dies)
        with pytest.raises(LlamaError, match="died before it read the prompt"):
            asyncio.run(engine.likelihood(ids, adapter="one"))


def peft_says(adapter: str, ids: list[int]) -> list[float]:
    """The log-probability of each token but the first, over the weights at F16, with an adapter beside them or alone."""
    import torch
    from transformers import AutoModelForCausalLM

    from llm_assets.training.adapters import beside

    model: Any = AutoModelForCausalLM.from_pretrained(decoder(0), dtype=torch.float16).float().eval()
    with torch.inference_mode():
        scores = (beside(model, lora(ADAPTERS[adapter])) if adapter else model)(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return [float(scores[place, token]) for place, token in enumerate(ids[1:])]


def test_an_adapter_that_waits_has_its_turn_though_others_go_on_coming(tmp_path: Path) -> None:
    """llama.cpp alone lets it stand while the first of its busy slots is asked for another."""
    with closing(Generator(write_model(tmp_path, adapters=ADAPTERS, context=LONG), slots=4)) as engine:
        asyncio.run(_crowded(engine))


async def _first(answer: ChatAnswer) -> None:
    async with aclosing(answer.events()) as events:
        await anext(events)


async def _crowded(engine: Generator) -> None:
    prompt = engine.chat([{"role": "user", "content": QUESTIONS[0]}])
    endless = {"temperature": 0, "grammar": 'root ::= "a" root', "n_predict": LONG - len(prompt)}
    ended = []

    async def answered(name: str, adapter: str) -> None:
        async with aclosing(engine.generate(prompt, {**endless, "n_predict": 4}, adapter)) as events:
            async for _ in events:
                pass
        ended.append(name)

    async with aclosing(engine.generate(prompt, endless, "one")) as running:
        await anext(running)
        behind = ChatAnswer(ChatRequest.model_validate(asked("talk:two", "x")), "talk-1", engine)
        waiting = asyncio.create_task(_first(behind))
        tasks = [asyncio.create_task(answered(name, adapter)) for name, adapter in (("waiting", "two"), ("later", "one"), ("as well", "two"))]
        for _ in range(5):
            await anext(running)  # goes on while they wait
        assert engine.busy == 5 and not ended
        began = time.perf_counter()
        await anext(running)
        held = time.perf_counter() - began
    await asyncio.gather(waiting, *tasks)
    assert behind.waited >= 1000 * held  # which is no slowness of its release
    assert ended[-1] == "later" and engine.busy == 0


def test_a_release_without_an_adapter_leaves_its_requests_to_the_one_that_has_it(tmp_path: Path) -> None:
    deploy(tmp_path, 1, adapters=ADAPTERS)
    with serving(tmp_path) as served:
        write_desired(tmp_path, "talk", release(tmp_path, 2, seed=1), proven(tmp_path, "talk"), Plan(steps=(99.0, 100.0), **PLAN))
        eventually(lambda: state(served.http) == "canary")
        answers = [ask(served, model, "x", max_tokens=1).release for model in ("talk", "talk:one") for _ in range(4)]
    assert set(answers[:4]) <= {"talk-1", "talk-2"} and "talk-2" in answers[:4] and answers[4:] == ["talk-1"] * 4


@pytest.mark.parametrize("spoilt", ["missing", "damaged"])
def test_a_model_whose_adapter_does_not_load_is_refused(tmp_path: Path, spoilt: str) -> None:
    folder = write_model(tmp_path, adapters=ADAPTERS)
    if spoilt == "missing":
        (folder / "adapter-two.gguf").unlink()
    else:
        (folder / "adapter-two.gguf").write_bytes(b"GGUF no more")
    with pytest.raises(EngineError, match=r"adapter-two\.gguf"):
        Generator(folder)
