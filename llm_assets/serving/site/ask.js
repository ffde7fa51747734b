import { byId, call, element, failed, say, start, state } from "./shared.js";

const WORDS = {
  en: {
    text: "Text, one a line", model: "Model", send: "Classify", none: "no model is served yet", release: "release", chat: "Chat",
    up: "The answer is right", down: "The answer is wrong", correct: "The right label …", number: "The right number",
    stored: "stored, thank you", storing: "storing …", carried: "Carried by", against: "against it", uncarried: "No word alone carried it",
  },
  zh: {
    text: "文本，每行一条", model: "模型", send: "分类", none: "尚无模型", release: "版本", chat: "对话",
    up: "答案正确", down: "答案错误", correct: "正确的标签……", number: "正确的数值",
    stored: "已保存，谢谢", storing: "正在保存……", carried: "依据", against: "反对", uncarried: "没有哪个词单独决定答案",
  },
};
const EXPLAINED = 8, LENGTH = 2000; // texts that the gateway explains at once, and their characters at most
let models = {}; // by release
let answered = null; // what the cards show, to draw them again in the other language

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
    failed(error);
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

/** How strongly a piece spoke for the answer (1 to 3) or against it (-1 to -3), beside the strongest of its text; 0: hardly. */
function strength(weight, strongest) {
  const share = Math.abs(weight) / strongest;
  return Math.sign(weight) * (share >= 0.6 ? 3 : share >= 0.25 ? 2 : share >= 0.08 ? 1 : 0);
}

/** The text with its words marked by what they carried, and the same said in a line. */
function explained({ label, pieces }, isNumber) {
  const least = isNumber ? 0 : 0.005; // half a percent, below which a weight is noise
  const strongest = Math.max(...pieces.map((piece) => Math.abs(piece.weight || 0)));
  if (!(strongest > least)) return [element("p", { textContent: pieces.map((piece) => piece.text).join("") }), element("p", { className: "quiet", textContent: say("uncarried") })];
  const points = (weight) => (weight > 0 ? "+" : "−") + (isNumber ? Math.abs(weight).toPrecision(3) : `${(Math.abs(weight) * 100).toFixed(1)} %`);
  const marked = pieces.map((piece) => {
    const level = strength(piece.weight || 0, strongest);
    return level ? element("mark", { className: `${level > 0 ? "for" : "against"}${Math.abs(level)}`, textContent: piece.text, title: points(piece.weight) }) : piece.text;
  });
  const named = (sign, most) => pieces.filter((piece) => Math.sign(strength(piece.weight || 0, strongest)) === sign)
    .sort((one, other) => sign * (other.weight - one.weight)).slice(0, most).map((piece) => `${piece.text} ${points(piece.weight)}`).join(" · ");
  const carried = named(1, 4), against = named(-1, 2);
  const line = [carried && `${say("carried")}${label ? ` (${label})` : ""}: ${carried}`, against && `${say("against")}: ${against}`].filter(Boolean).join("; ");
  return [element("p", {}, ...marked), element("p", { className: "quiet carried", textContent: line })];
}

/** Fills in what is known of a card's text by now. */
function showText(result) {
  const { input, answer, unexplained } = answered, model = models[answer.release];
  const isNumber = Boolean(model && model.problem === "regression");
  const text = result.explanation ? explained(result.explanation, isNumber) : [element("p", { textContent: input[result.index] })];
  result.place.replaceChildren(...text, ...(unexplained ? [element("p", { className: "quiet", textContent: unexplained })] : []));
}

async function explain(shown) {
  const indices = shown.input.map((_, index) => index).filter((index) => shown.input[index].length <= LENGTH).slice(0, EXPLAINED);
  if (!indices.length) return;
  const { model, release, data } = shown.answer;
  try {
    const found = await call("v1/explain", { model, release, input: indices.map((index) => shown.input[index]) });
    for (const one of found.data) data[indices[one.index]].explanation = one;
  } catch (error) {
    shown.unexplained = error.message;
  }
  if (answered === shown) data.forEach(showText);
}

function card(result) {
  const { answer, milliseconds } = answered, model = models[answer.release];
  result.place = element("div", {});
  showText(result);
  return element("article", { className: "answer card" }, result.place, ...bars(result, model),
    element("footer", { className: "quiet", textContent: `${say("release")} ${answer.release} · ${milliseconds.toFixed(0)} ms` }),
    ...(model ? [vote(answer, result, model)] : []));
}

function draw() {
  byId("model").ariaLabel = say("model");
  if (answered) byId("answers").replaceChildren(...answered.answer.data.map(card));
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
    explain(answered);
  } catch (error) {
    answered = null;
    byId("answers").replaceChildren(element("p", { className: "error card", textContent: error.message }));
  }
  byId("send").disabled = false;
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
start(WORDS, draw, refresh);
