"use strict";
const SAID = {
  en: {
    text: "Your turn", model: "Model", send: "Send", stop: "Stop", fresh: "New conversation", ready: "ready", none: "no model that talks is served yet",
    silent: "the gateway does not answer", key: "API key", needed: "an API key is needed", release: "release", language: "中文",
    up: "A good answer", down: "A bad answer", stored: "stored, thank you", broken: "the answer broke off",
  },
  zh: {
    text: "轮到您", model: "模型", send: "发送", stop: "停止", fresh: "新对话", ready: "就绪", none: "尚无对话模型",
    silent: "网关无响应", key: "API 密钥", needed: "需要 API 密钥", release: "版本", language: "English",
    up: "回答得好", down: "回答不好", stored: "已保存，谢谢", broken: "回答中断",
  },
};
const byId = (id) => document.getElementById(id);
let language = localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let turns = []; // OpenAI's messages
let running = null; // what stops the answer that is being written
let model = ""; // the one chosen

const say = (key) => SAID[language][key];

function element(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

function state(text, bad) {
  byId("state").textContent = text;
  byId("state").className = bad ? "error" : "";
}

async function call(path, body, signal) {
  const key = byId("key").value.trim();
  const headers = { ...(key ? { Authorization: `Bearer ${key}` } : {}), ...(body ? { "Content-Type": "application/json" } : {}) };
  const response = await fetch(path, { headers, signal, ...(body ? { method: "POST", body: JSON.stringify(body) } : {}) });
  if (response.status === 401) byId("keyrow").hidden = false;
  if (!response.ok) throw Object.assign(new Error((await response.json()).error.message), { status: response.status });
  return response;
}

async function refresh() {
  try {
    const { data } = await (await call("v1/models")).json();
    const talking = data.filter((one) => one.task === "generation");
    byId("model").replaceChildren(...talking.map((one) => element("option", { value: one.id, textContent: `${one.id} (${one.release})` })));
    if (talking.some((one) => one.id === model)) byId("model").value = model;
    model = byId("model").value;
    byId("send").disabled = talking.length === 0 || running !== null;
    state(say(talking.length ? "ready" : "none"));
  } catch (error) {
    byId("send").disabled = true;
    state(say(error.status === 401 ? "needed" : "silent"), true);
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
  const buttons = Object.entries({ up: "👍", down: "👎" }).map(([rating, textContent]) => {
    const button = element("button", { type: "button", textContent, title: say(rating), ariaLabel: say(rating) });
    button.addEventListener("click", async () => {
      try {
        await call("v1/feedback", { id, rating });
        buttons.forEach((one) => { one.ariaPressed = String(one === button); });
        told.textContent = say("stored");
      } catch (error) {
        told.textContent = error.message;
      }
    });
    return button;
  });
  return element("div", { className: "vote" }, ...buttons, told);
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
    for await (const event of events(await call("v1/chat/completions", { model, messages: turns, stream: true }, running.signal))) {
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
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  byId("model").ariaLabel = say("model");
  byId("language").textContent = say("language");
  document.documentElement.lang = language;
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
byId("key").addEventListener("change", refresh);
byId("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem("language", language);
  draw();
  refresh();
});
draw();
refresh();
setInterval(refresh, 5000);
