"use strict";
const SAID = {
  en: {
    text: "Text, one a line", model: "Model", send: "Classify", ready: "ready", none: "no model is served yet",
    silent: "the gateway does not answer", key: "API key", needed: "an API key is needed", release: "release", chat: "Chat",
    up: "The answer is right", down: "The answer is wrong", correct: "The right label …", number: "The right number",
    stored: "stored, thank you", storing: "storing …", language: "中文",
  },
  zh: {
    text: "文本，每行一条", model: "模型", send: "分类", ready: "就绪", none: "尚无模型",
    silent: "网关无响应", key: "API 密钥", needed: "需要 API 密钥", release: "版本", chat: "对话",
    up: "答案正确", down: "答案错误", correct: "正确的标签……", number: "正确的数值",
    stored: "已保存，谢谢", storing: "正在保存……", language: "English",
  },
};
const byId = (id) => document.getElementById(id);
let language = localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en");
let models = {}; // by release
let answered = null; // what the cards show, to draw them again in the other language

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

async function call(path, body) {
  const key = byId("key").value.trim();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } });
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.status === 401) byId("keyrow").hidden = false;
  if (!response.ok) throw Object.assign(new Error(answer.error ? answer.error.message : response.statusText), { status: response.status });
  return answer;
}

async function refresh() {
  try {
    const every = (await call("v1/models")).data, data = every.filter((model) => model.task !== "generation");
    byId("chat").hidden = data.length === every.length;
    if (every.length && !data.length) location.replace("chat"); // there is nothing but models that talk
    const chosen = byId("model").value;
    byId("model").replaceChildren(...data.map((model) => element("option", { value: model.id, textContent: `${model.id} (${model.release})` })));
    if (data.some((model) => model.id === chosen)) byId("model").value = chosen;
    models = { ...models, ...Object.fromEntries(data.map((model) => [model.release, model])) };
    byId("send").disabled = data.length === 0;
    state(say(data.length ? "ready" : "none"));
  } catch (error) {
    byId("send").disabled = true;
    state(say(error.status === 401 ? "needed" : "silent"), true);
  }
}

function bars(result, model) {
  const names = model ? model.labels : result.probs.map((_, index) => String(index));
  const isNumber = model && model.problem === "regression";
  const chosen = result.label.split("|"); // several where a text may have several
  return result.probs.map((value, index) => {
    const bar = element("i", {});
    bar.style.width = isNumber ? "0" : `${value * 100}%`;
    return element("div", { className: chosen.includes(names[index]) ? "prob top" : "prob" },
      element("span", { textContent: names[index] }), element("span", { className: "track" }, bar),
      element("span", { textContent: isNumber ? value.toPrecision(4) : `${(value * 100).toFixed(1)} %` }));
  });
}

function correction(model) {
  if (model.problem === "regression") return element("input", { type: "number", step: "any", placeholder: say("number"), ariaLabel: say("number") });
  const options = model.labels.map((label) => element("option", { value: label, textContent: label }));
  const select = element("select", { multiple: model.problem === "multi_label", ariaLabel: say("correct") });
  if (!select.multiple) options.unshift(element("option", { value: "", textContent: say("correct") }));
  select.append(...options);
  return select;
}

function corrected(field) {
  const value = field.multiple ? [...field.selectedOptions].map((option) => option.value).sort().join("|") : field.value;
  return value === "" ? null : value;
}

function vote(answer, result, model) {
  const thumbs = { up: element("button", { type: "button", textContent: "👍" }), down: element("button", { type: "button", textContent: "👎" }) };
  const field = correction(model), told = element("output", {});
  const show = () => Object.entries(thumbs).forEach(([rating, button]) => { button.ariaPressed = String(result.rating === rating); });
  async function send() {
    told.textContent = say("storing");
    told.className = "";
    try {
      await call("v1/feedback", { id: answer.id, index: result.index, rating: result.rating || null, label: corrected(field) });
      told.textContent = say("stored");
    } catch (error) {
      told.textContent = error.message;
      told.className = "error";
    }
  }
  for (const [rating, button] of Object.entries(thumbs)) {
    button.ariaLabel = button.title = say(rating);
    button.addEventListener("click", () => { result.rating = rating; show(); send(); });
  }
  field.addEventListener("change", () => {
    if (corrected(field) !== null) result.rating = corrected(field) === result.label ? "up" : "down";
    show();
    if (result.rating) send();
  });
  show();
  return element("div", { className: "vote" }, thumbs.up, thumbs.down, field, told);
}

function draw() {
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  byId("model").ariaLabel = say("model");
  byId("language").textContent = say("language");
  document.documentElement.lang = language;
  if (!answered) return;
  const { input, answer, milliseconds } = answered, model = models[answer.release];
  byId("answers").replaceChildren(...answer.data.map((result) => element("article", { className: "answer" },
    element("p", { textContent: input[result.index] }), ...bars(result, model),
    element("footer", { textContent: `${say("release")} ${answer.release} · ${milliseconds.toFixed(0)} ms` }),
    ...(model ? [vote(answer, result, model)] : []))));
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = byId("text").value.split("\n").map((line) => line.trim()).filter(Boolean);
  byId("send").disabled = true;
  try {
    const began = performance.now();
    const answer = await call("v1/classify", { model: byId("model").value, input });
    answered = { input, answer, milliseconds: performance.now() - began };
    if (!models[answer.release]) await refresh();
    draw();
  } catch (error) {
    answered = null;
    byId("answers").replaceChildren(element("p", { className: "error answer", textContent: error.message }));
  }
  byId("send").disabled = false;
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
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
