// What the gateway's pages share: two languages, the API key, questions to the gateway, and the way from one page to another.
const PAGES = [["./", "ask"], ["label", "label"], ["status", "status"]];
const SAID = {
  en: {
    ask: "Ask", label: "Label", status: "Status", language: "中文", key: "API key", needed: "an API key is needed", ready: "ready",
    silent: "the gateway does not answer",
  },
  zh: {
    ask: "提问", label: "标注", status: "状态", language: "English", key: "API 密钥", needed: "需要 API 密钥", ready: "就绪",
    silent: "网关无响应",
  },
};
let language = localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en");

export const byId = (id) => document.getElementById(id);
export const say = (key) => SAID[language][key];
export const time = (at, parts) => new Date(at).toLocaleString(language === "zh" ? "zh-CN" : "en-GB", parts);

export function element(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
}

export function state(text, bad) {
  byId("state").textContent = text;
  byId("state").className = bad ? "error" : "";
}

/** The response to a GET, or to a POST of `body`, until `signal` ends it; throws an error with the gateway's message and its `status`. */
export async function request(path, body, signal) {
  const key = byId("key").value.trim();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const options = { headers, signal };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } });
  const response = await fetch(path, options);
  if (response.status === 401) byId("keyrow").hidden = false;
  if (response.ok) return response;
  const { error } = await response.json();
  throw Object.assign(new Error(error ? error.message : response.statusText), { status: response.status });
}

/** The answer of a response, which is JSON. */
export const call = async (path, body) => (await request(path, body)).json();

/** Says in the header why a question of the page's own failed. */
export function failed(error) {
  state(error.status === 401 ? say("needed") : error.status ? error.message : say("silent"), true);
}

/** Starts a page: `words` by language, `draw` what is known, `refresh` what is not, at once, every 5 s and with another key. */
export function start(words, draw, refresh) {
  for (const [name, said] of Object.entries(words)) Object.assign(SAID[name], said);
  const redraw = () => {
    const here = location.pathname.split("/").pop() || "./";
    byId("nav").replaceChildren(...PAGES.map(([path, name]) => {
      const link = element("a", { href: path, textContent: say(name) });
      if (path === here) link.ariaCurrent = "page";
      return link;
    }));
    for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
    byId("language").textContent = say("language");
    document.documentElement.lang = language;
    draw();
  };
  byId("key").value = sessionStorage.getItem("key") || ""; // until the tab is closed
  byId("key").addEventListener("change", () => {
    sessionStorage.setItem("key", byId("key").value.trim());
    refresh();
  });
  byId("language").addEventListener("click", () => {
    language = language === "zh" ? "en" : "zh";
    localStorage.setItem("language", language);
    redraw();
    refresh();
  });
  redraw();
  refresh();
  setInterval(refresh, 5000);
}
