import { byId, call, element, failed, say, start, state } from "./shared.js";

const WORDS = {
  en: {
    chain: "Chain", annotator: "Your name", begin: "Start", empty: "Nothing is left to label. Thank you.", none: "no chain has a queue",
    skip: "Skip", back: "Back", confirm: "Done", number: "The right number", left: "left", labelled: "labelled", answered: "the model said",
    texts: "texts", kappa: "Cohen's kappa", help: "Keys: 1 to 9 for a label, s to skip, b to go back",
    disagreement: "another release said otherwise", uncertainty: "the model was unsure", novelty: "unlike the training texts", random: "picked at random",
  },
  zh: {
    chain: "模型链", annotator: "你的名字", begin: "开始", empty: "没有待标注的文本了，谢谢。", none: "没有标注队列",
    skip: "跳过", back: "返回", confirm: "完成", number: "正确的数值", left: "条待标注", labelled: "条已标注", answered: "模型的答案",
    texts: "条文本", kappa: "Cohen κ 系数", help: "按键：1 至 9 选标签，s 跳过，b 返回",
    disagreement: "另一版本的答案不同", uncertainty: "模型没有把握", novelty: "与训练文本不同", random: "随机选取",
  },
};
let queue = null; // as this annotator sees it
let task = null; // the text that is shown
let before = null; // the one before it, to go back to
let picked = new Set(); // of several labels those that were chosen
let busy = false;

const annotator = () => byId("annotator").value.trim();

async function refresh() {
  try {
    const { chains } = await call("v1/annotations");
    const chosen = byId("chain").value;
    byId("chain").replaceChildren(...chains.map((name) => element("option", { value: name, textContent: name })));
    if (chains.includes(chosen)) byId("chain").value = chosen;
    state(say(chains.length ? "ready" : "none"));
  } catch (error) {
    failed(error);
  }
}

function show(found) {
  queue = found;
  task = found.tasks[0] || null;
  picked = new Set();
  draw();
  byId("task").focus();
}

async function ask(path, body) {
  if (busy) return;
  busy = true; // two keys at once must not label two texts
  try {
    const found = await call(path, body);
    state(say("ready"));
    if (body) before = task;
    show(found);
  } catch (error) {
    failed(error);
  }
  busy = false;
}

const label = (value) => ask(`v1/annotations/${queue.chain}`, { annotator: annotator(), id: task.id, index: task.index, label: value });

function back() {
  if (!before) return;
  [task, before, picked] = [before, null, new Set()];
  draw();
  byId("task").focus();
}

function pick(name) {
  if (queue.problem !== "multi_label") return label(name);
  if (!picked.delete(name)) picked.add(name);
  return draw();
}

const confirm = () => label([...picked].sort().join("|"));

function choices() {
  if (queue.problem === "regression") {
    const field = element("input", { type: "number", step: "any", required: true, ariaLabel: say("number") });
    const form = element("form", { className: "row plainform" }, field, element("button", { textContent: say("confirm") }));
    form.addEventListener("submit", (event) => { event.preventDefault(); label(field.value); });
    return [form];
  }
  const buttons = queue.labels.map((name, index) => {
    const button = element("button", { type: "button", className: "plain" }, ...(index < 9 ? [element("kbd", { textContent: index + 1 })] : []), name);
    if (queue.problem === "multi_label") button.ariaPressed = String(picked.has(name));
    button.addEventListener("click", () => pick(name));
    return button;
  });
  if (queue.problem !== "multi_label") return [element("div", { className: "row" }, ...buttons)];
  const done = element("button", { type: "button", textContent: say("confirm") });
  done.addEventListener("click", confirm);
  return [element("div", { className: "row" }, ...buttons, done)];
}

function draw() {
  byId("task").hidden = !queue;
  if (!queue) return;
  if (task) {
    const others = ["skip", "back"].map((name) => {
      const button = element("button", { type: "button", className: "plain", disabled: name === "back" && !before }, element("kbd", { textContent: name[0] }), say(name));
      button.addEventListener("click", name === "back" ? back : () => label(null));
      return button;
    });
    byId("task").replaceChildren(element("h2", { textContent: task.text }), ...choices(), element("div", { className: "row" }, ...others),
      element("p", { className: "quiet", textContent: `${say(task.reason)} · ${say("answered")}: ${task.answered}` }),
      element("p", { className: "quiet", textContent: say("help") }));
  } else {
    byId("task").replaceChildren(element("p", { textContent: say("empty") }));
  }
  const counts = Object.entries(queue.annotators).map(([name, count]) => `${name}: ${count} ${say("labelled")}`);
  const kappas = queue.agreements.map(({ annotators, texts, kappa }) => `${say("kappa")} ${annotators.join(" / ")}: ${kappa.toFixed(2)} (${texts} ${say("texts")})`);
  byId("progress").replaceChildren(...[`${queue.left} ${say("left")}`, ...counts, ...kappas].map((line) => element("p", { textContent: line })));
}

byId("annotator").value = localStorage.getItem("annotator") || "";
byId("who").addEventListener("submit", (event) => {
  event.preventDefault();
  localStorage.setItem("annotator", annotator());
  before = null;
  if (annotator() && byId("chain").value) ask(`v1/annotations/${byId("chain").value}?annotator=${encodeURIComponent(annotator())}`);
});
document.addEventListener("keydown", (event) => {
  if (!task || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const name = queue.problem === "regression" ? undefined : queue.labels[Number(event.key) - 1];
  if (name !== undefined) pick(name);
  else if (event.key === "s") label(null);
  else if (event.key === "b") back();
  else if (event.key === "Enter" && queue.problem === "multi_label" && !event.target.matches("button")) confirm();
  else return;
  event.preventDefault();
});
start(WORDS, draw, refresh);
