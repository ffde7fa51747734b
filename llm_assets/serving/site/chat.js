import { byId, call, element, failed, request, say, start, state } from "./shared.js";

const WORDS = {
  en: {
    text: "Your turn", model: "Model", send: "Send", stop: "Stop", fresh: "New conversation", none: "no model that talks is served yet",
    release: "release", up: "A good answer", down: "A bad answer", stored: "stored, thank you", broken: "the answer broke off",
    better: "What it should have said", correct: "Send correction",
  },
  zh: {
    text: "轮到您", model: "模型", send: "发送", stop: "停止", fresh: "新对话", none: "尚无对话模型",
    release: "版本", up: "回答得好", down: "回答不好", stored: "已保存，谢谢", broken: "回答中断",
    better: "应该怎样回答", correct: "发送更正",
  },
};
let turns = []; // OpenAI's messages
let running = null; // what stops the answer that is being written
let model = ""; // the one chosen

async function refresh() {
  try {
    const { data } = await call("v1/models");
    const talking = data.filter((one) => one.task === "generation");
    byId("model").replaceChildren(...talking.map((one) => element("option", { value: one.id, textContent: `${one.id} (${one.release})` })));
    if (talking.some((one) => one.id === model)) byId("model").value = model;
    model = byId("model").value;
    byId("send").disabled = talking.length === 0 || running !== null;
    state(say(talking.length ? "ready" : "none"));
  } catch (error) {
    byId("send").disabled = true;
    failed(error);
  }
}

// The events of a streamed answer, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const whole = (rest + read.value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) if (event.startsWith("data: {")) yield JSON.parse(event.slice(6));
  }
}

function vote(id) {
  const told = element("output", {});
  const thumbs = Object.entries({ up: "👍", down: "👎" }).map(([rating, textContent]) => {
    const button = element("button", { type: "button", textContent, title: say(rating), ariaLabel: say(rating) });
    button.addEventListener("click", () => store(rating, null));
    return [rating, button];
  });
  const better = element("textarea", { placeholder: say("better"), ariaLabel: say("better"), maxLength: 2000, hidden: true });
  const correct = element("button", { type: "button", textContent: say("correct"), hidden: true });
  correct.addEventListener("click", () => better.value.trim() && store("down", better.value.trim()));
  async function store(rating, label) {
    try {
      await call("v1/feedback", { id, rating, label });
      thumbs.forEach(([name, button]) => { button.ariaPressed = String(name === rating); });
      better.hidden = correct.hidden = rating === "up";
      told.textContent = say("stored");
    } catch (error) {
      told.textContent = error.message;
    }
  }
  return element("div", { className: "vote" }, ...thumbs.map(([, button]) => button), told, better, correct);
}

async function answer() {
  const text = element("span", {}), card = element("article", { className: "turn assistant" }, text);
  byId("turns").append(card);
  const began = performance.now();
  running = new AbortController();
  byId("stop").hidden = false;
  byId("send").disabled = true;
  let said = "", last = null, problem = "";
  try {
    for await (const event of events(await request("v1/chat/completions", { model, messages: turns, stream: true }, running.signal))) {
      if (event.error) throw new Error(event.error.message);
      last = event;
      said += event.choices[0].delta.content || "";
      text.textContent = said;
      card.scrollIntoView({ block: "end" });
    }
  } catch (error) {
    problem = error.name === "AbortError" ? say("broken") : error.message;
  }
  if (said) turns.push({ role: "assistant", content: said });
  else turns.pop(); // what was refused is no part of the conversation
  if (last) card.append(element("footer", { textContent: `${say("release")} ${last.release} · ${((performance.now() - began) / 1000).toFixed(1)} s` }));
  if (problem) card.append(element("p", { className: "error", textContent: problem }));
  else card.append(vote(last.id));
  running = null;
  byId("stop").hidden = true;
  byId("send").disabled = false;
}

function draw() {
  byId("model").ariaLabel = say("model");
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = byId("text").value.trim();
  if (!content || running || byId("send").disabled) return;
  byId("text").value = "";
  turns.push({ role: "user", content });
  byId("turns").append(element("article", { className: "turn user", textContent: content }));
  answer();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("form").requestSubmit();
  }
});
byId("stop").addEventListener("click", () => running && running.abort());
byId("fresh").addEventListener("click", () => {
  if (running) running.abort();
  turns = [];
  byId("turns").replaceChildren();
  byId("text").focus();
});
byId("model").addEventListener("change", () => { model = byId("model").value; });
start(WORDS, draw, refresh);
