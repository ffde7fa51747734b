import { byId, call, element, failed, say, start, state, time } from "./shared.js";

const WORDS = {
  en: {
    none: "no chain is to be served yet", traffic: "Traffic", last: "in this minute", most: "most in a minute of the last hour", failed: "failed",
    newest: "Of the newest requests", release: "release", split: "Split", rollout: "Rollout", drift: "Drift", unlooked: "nobody has looked yet",
    alerts: "Alerts", quiet: "none", since: "since", events: "Events", nothing: "none yet", labels: "Answers", releases: "Answered by",
    full: "in full service", shadow: "in shadow", canary: "canary", rolled_back: "rolled back", loading: "loading", minutes: "Requests a minute", to: "for",
    steps: "steps",
  },
  zh: {
    none: "尚无要服务的模型链", traffic: "流量", last: "本分钟", most: "近一小时内每分钟最多", failed: "失败",
    newest: "最近的请求", release: "版本", split: "分流", rollout: "发布进度", drift: "漂移", unlooked: "尚未检查",
    alerts: "告警", quiet: "无", since: "自", events: "事件", nothing: "暂无", labels: "答案", releases: "回答的版本",
    full: "全量服务", shadow: "影子模式", canary: "灰度", rolled_back: "已回滚", loading: "加载中", minutes: "每分钟请求数", to: "负责",
    steps: "步骤",
  },
};
const SHORT = { month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
let chains = null;

async function refresh() {
  try {
    ({ chains } = await call("v1/status"));
    state(chains.length ? time(Date.now(), { timeStyle: "medium" }) : say("none"));
    draw();
  } catch (error) {
    failed(error);
  }
}

const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

function shares(title, found) {
  const rows = Object.entries(found).map(([name, share]) => {
    const bar = element("i", {});
    bar.style.width = `${share * 100}%`;
    return element("div", { className: "prob top" }, element("span", { textContent: name }), element("span", { className: "track" }, bar), element("span", { textContent: percent(share) }));
  });
  return rows.length ? [element("h3", { textContent: title }), ...rows] : [];
}

function minutes(found) {
  const most = Math.max(1, ...found.map((minute) => minute.requests)), last = found.at(-1);
  const said = `${say("minutes")}: ${last ? last.requests : 0} ${say("last")}, ${say("most")}: ${Math.max(0, ...found.map((minute) => minute.requests))}`;
  const chart = element("div", { className: "chart", role: "img", ariaLabel: said }, ...found.map((minute) => {
    const bar = element("i", { className: minute.failed ? "bad" : "", title: `${time(minute.at * 1000, { timeStyle: "short" })}: ${minute.requests}, ${minute.failed} ${say("failed")}` });
    bar.style.height = `${(minute.requests / most) * 100}%`;
    return bar;
  }));
  return [chart, element("p", { className: "quiet", textContent: said })];
}

function list(title, lines, otherwise) {
  const body = lines.length ? element("ul", {}, ...lines.map((line) => element("li", {}, ...line))) : element("p", { className: "quiet", textContent: otherwise });
  return [element("h3", { textContent: title }), body];
}

const moment = (at) => element("time", { dateTime: at, textContent: time(at, SHORT) });

function card(chain) {
  const { traffic, rollout, drift } = chain;
  const split = Object.entries(chain.split).map(([release, share]) => `${release} ${share} %`).join(" · ");
  const rolling = rollout ? [[`${rollout.stable} → ${rollout.release}: ${say(rollout.stage)}, ${rollout.share} % (${say("steps")}: ${rollout.steps.map((step) => `${step} %`).join(", ")})`]] : [];
  const latency = traffic.requests ? `: ${traffic.requests}, p50 ${traffic.p50_ms.toFixed(1)} ms, p99 ${traffic.p99_ms.toFixed(1)} ms` : `: 0`;
  return element("article", { className: "card" },
    element("h2", { textContent: chain.chain }),
    element("p", { textContent: `${say(chain.state)} · ${say("release")} ${chain.live || "—"}${split ? ` · ${say("split")}: ${split}` : ""}` }),
    ...(chain.error ? [element("p", { className: "error", textContent: chain.error })] : []),
    ...(rolling.length ? list(say("rollout"), rolling, "") : []),
    ...list(say("alerts"), chain.alerts.map(({ rule, since, team }) => [element("strong", { className: "error", textContent: rule }), ` ${say("since")} `, moment(since), `${say("to")} ${team}`]), say("quiet")),
    ...list(say("drift"), drift ? [[moment(drift.at), element("span", { className: drift.drifted.length ? "error" : "", textContent: drift.reason })]] : [], say("unlooked")),
    element("h3", { textContent: say("traffic") }), ...minutes(traffic.minutes),
    element("p", { className: "quiet", textContent: `${say("newest")}${latency}` }),
    ...shares(say("labels"), traffic.labels), ...shares(say("releases"), traffic.releases),
    ...list(say("events"), chain.events.map(({ at, message }) => [moment(at), message]), say("nothing")));
}

function draw() {
  if (chains) byId("chains").replaceChildren(...chains.map(card));
}

start(WORDS, draw, refresh);
