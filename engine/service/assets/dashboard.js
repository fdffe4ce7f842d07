// The dashboard. Everything shown goes through textContent; nothing that comes from outside is ever markup.
"use strict";

const KEY = "rainfocus-engine-key";
const EVERY_MS = 2000;
const OUTCOMES = ["delivered", "suppressed", "superseded", "excluded", "dead_lettered", "expired"];
const WORDS = { dead_lettered: "dead-lettered" };

const at = (id) => document.getElementById(id);
const number = (value) => new Intl.NumberFormat("en").format(value ?? 0);
const word = (name) => WORDS[name] ?? name;

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value ?? 0;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left.toFixed(unit && left < 100 ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
  if (!seconds) return "none";
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

const moment = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "–");

// -- asking the engine ------------------------------------------------------------------------------------------

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(method, path, body) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method, headers, cache: "no-store", redirect: "error",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, "The engine does not answer. Is it running, and is this page's address still right?");
  }
  const said = await answer.json().catch(() => null);
  if (answer.ok) return said;
  if (answer.status === 401 || said?.type === "forbidden") at("key-form").hidden = false;
  const why = said?.detail ?? `It answered with status ${answer.status}.`;
  throw new Refused(answer.status, answer.status === 401 && key ? `This key is not accepted: ${why}` : why);
}

let noticeOf = "";

function complain(error, about) {
  noticeOf = about;
  at("notice").hidden = false;
  say(at("notice"), `${about}: ${error.message}`);
}

function wellAgain(about) {
  if (noticeOf === about) at("notice").hidden = true;
}

async function attempt(about, button, work) {
  if (button) button.disabled = true;
  try {
    await work();
    wellAgain(about);
  } catch (error) {
    complain(error, about);
  } finally {
    if (button) button.disabled = false;
  }
}

// -- status -----------------------------------------------------------------------------------------------------

const cards = new Map();
let before = null;

function makeCard(name) {
  const card = element("article", "", "card");
  const head = element("div", "", "head");
  const parts = { card, badge: element("span", "", "badge"), reason: element("p"), where: element("p", "", "soft"), values: {} };
  head.append(element("h3", name), parts.badge);
  const list = element("dl");
  const rows = ["pending", "oldest pending", "events a second", ...OUTCOMES, "accepted", "waiting · in flight · held"];
  for (const row of rows) {
    parts.values[row] = element("dd", "–");
    list.append(element("dt", word(row)), parts.values[row]);
  }
  parts.why = element("p", "", "soft");
  parts.button = element("button", "Pause", "quiet");
  parts.button.type = "button";
  parts.button.addEventListener("click", () => toggle(name, parts));
  card.append(head, parts.reason, parts.where, list, parts.why, parts.button);
  return parts;
}

async function toggle(name, parts) {
  const order = parts.state === "paused" ? "resume" : "pause";
  await attempt(`${order} ${name}`, parts.button, async () => {
    showDestination(await ask("POST", `v1/destinations/${encodeURIComponent(name)}/${order}`, {}), null);
  });
}

function rateOf(destination, now) {
  const earlier = before?.counts.get(destination.name);
  const done = OUTCOMES.reduce((sum, name) => sum + (destination.counts?.[name] ?? 0), 0);
  now?.counts.set(destination.name, done);
  if (earlier === undefined || !now || now.at <= before.at) return null;
  return Math.max(0, (done - earlier) / ((now.at - before.at) / 1000));
}

function showDestination(it, now) {
  if (!cards.has(it.name)) {
    cards.set(it.name, makeCard(it.name));
    at("destinations").append(cards.get(it.name).card);
    const option = element("option", it.name);
    option.value = it.name;
    at("letters-destination").append(option);
  }
  const parts = cards.get(it.name);
  const stateWords = { active: ["active", "badge good"], paused: ["paused", "badge warn"], open: ["standing still", "badge bad"] };
  const [text, className] = stateWords[it.state] ?? [it.state, "badge"];
  parts.state = it.state;
  say(parts.badge, it.recovering ? "recovering" : text, it.recovering ? "badge warn" : className);
  say(parts.reason, it.reason ? `Why: ${it.reason}` : "", "bad");
  say(parts.where, [it.environment, it.event_code, it.url].filter(Boolean).join(" · "));
  const counts = it.counts ?? {};
  const rate = rateOf(it, now);
  const values = {
    pending: number(counts.pending), "oldest pending": duration(it.oldest_pending_seconds), accepted: number(counts.accepted),
    "waiting · in flight · held": [it.waiting, it.leased, it.held].map(number).join(" · "),
  };
  for (const name of OUTCOMES) values[name] = number(counts[name]);
  if (rate !== null) values["events a second"] = rate.toFixed(rate < 10 ? 1 : 0);
  for (const [name, value] of Object.entries(values)) say(parts.values[name], value);
  const excluded = Object.entries(it.excluded ?? {}).map(([reason, events]) => `${reason} ${number(events)}`);
  const residual = it.residual ? `The sums do not add up: ${number(it.residual)} events. Run the audit.` : "";
  say(parts.why, [excluded.length ? `Excluded: ${excluded.join(", ")}` : "", residual].filter(Boolean).join(" "));
  say(parts.button, it.state === "paused" ? "Resume" : "Pause");
  parts.button.setAttribute("aria-label", `${parts.button.textContent} ${it.name}`);
}

function showStatus(status) {
  const reasons = status.reasons ?? [];
  const health = status.ready ? (status.recovering ? "Ready, recovering" : "Ready") : `Not ready: ${reasons.join(", ")}`;
  say(at("health"), status.version ? `${health} · version ${status.version}` : health, status.ready ? "good" : "bad");
  showAlerts(status.alerts ?? []);
  const now = { at: performance.now(), counts: new Map() };
  for (const it of status.destinations ?? []) showDestination(it, now);
  before = now;
  const journal = status.journal ?? {};
  at("journal-use").value = journal.max_bytes ? journal.bytes / journal.max_bytes : 0;
  const settled = number(Math.round(status.settled_per_second ?? 0));
  say(at("journal-text"), `${bytes(journal.bytes)} of ${bytes(journal.max_bytes)}, ${bytes(journal.disk_free_bytes)} free on disk, ${settled} events settled a second`);
  at("accounts").replaceChildren(...(status.accounts ?? []).map(accountLine));
  at("notes").replaceChildren(...(status.notes ?? []).map((note) => element("li", note, "warn")));
}

function showAlerts(alerts) {
  at("alerts-section").hidden = !alerts.length;
  const lines = alerts.map((it) => `${it.summary} (${it.alert}, since ${moment(it.since)}). What to do: ${it.advice}`);
  const shown = [...at("alerts").children].map((line) => line.textContent);
  if (lines.join("\n") === shown.join("\n")) return;
  at("alerts").replaceChildren(...lines.map((line) => element("li", line, "bad")));
}

function accountLine(account) {
  const parts = [`Account ${account.name}: ${number(account.in_flight)} of ${number(account.concurrency_limit)} requests on the wire`];
  if (account.breaker !== "closed") parts.push(`breaker ${account.breaker}`);
  if (account.paused_seconds) parts.push(`asked to wait ${duration(account.paused_seconds)}`);
  if (account.token_trouble) parts.push(`no token: ${account.token_trouble}`);
  return element("p", parts.join(", "), parts.length > 1 ? "warn" : "");
}

async function watch() {
  if (!document.hidden) {
    try {
      showStatus(await ask("GET", "v1/status"));
      wellAgain("Status");
    } catch (error) {
      say(at("health"), error.status === 401 ? "A key is needed" : "No figures", "bad");
      complain(error, "Status");
    }
  }
  setTimeout(watch, EVERY_MS);
}

// -- hourly runs ------------------------------------------------------------------------------------------------

const fullHour = (seconds) => new Date(seconds * 1000).toLocaleString(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const RUNS_EVERY_MS = 15000;
const RUN_COLUMNS = [
  ["Dataflow run start", (run) => fullHour(run.started_at)], ["Destination", (run) => run.destination],
  ["Status", (run) => run.status], ["Profiles received", (run) => number(run.profiles_received), "figure"],
  ["Identities activated", (run) => number(run.identities_activated), "figure"],
  ["Identities excluded", (run) => number(run.identities_excluded), "figure"],
  ["Identities failed", (run) => number(run.identities_failed), "figure"],
  ["Activation rate", (run) => (run.activation_rate === null ? "–" : `${(100 * run.activation_rate).toFixed(1)} %`), "figure"],
  ["Errors", (run) => run.errors.map((error) => `${error.code}\u00a0×\u00a0${number(error.recordCount)}`).join(", ") || "–"],
];

function runRow(run) {
  const row = element("tr");
  for (const [name, value, className] of RUN_COLUMNS) {
    const cell = element("td", value(run), className ?? "");
    cell.dataset.name = name;
    row.append(cell);
  }
  row.lastChild.className = "codes";
  row.lastChild.title = run.errors.map((error) => `${error.code}: ${error.message}`).join("\n");
  return row;
}

async function showRuns() {
  const since = new Date(Date.now() - 24 * 3600 * 1000).toISOString().slice(0, 13) + ":00:00Z";
  const { runs, next } = await ask("GET", `v1/runs?limit=250&since=${encodeURIComponent(since)}`);
  at("runs").replaceChildren(...runs.map(runRow));
  const more = next ? " The newest 250; `rainfocus-engine runs` has all." : "";
  say(at("runs-text"), runs.length ? `In events, by the hour in which they got their outcome.${more}` : "Nothing was settled in these hours.");
}

async function watchRuns() {
  if (!document.hidden) await attempt("Runs", null, showRuns);
  setTimeout(watchRuns, RUNS_EVERY_MS);
}

// -- dead letters -----------------------------------------------------------------------------------------------

let nextLetter = null;

function conditions() {
  const given = { destination: at("letters-destination").value, class: at("letters-class").value };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value));
}

async function showLetters(after) {
  const query = new URLSearchParams({ ...conditions(), limit: "50", after: String(after) });
  const page = await ask("GET", `v1/dead-letters?${query}`);
  const rows = page.letters.map(letterRow);
  if (after) at("letters").append(...rows);
  else at("letters").replaceChildren(...rows);
  nextLetter = page.next;
  at("letters-more").hidden = nextLetter === null;
  say(at("letters-text"), page.total ? `${number(page.total)} kept` : "There are none.");
}

function letterRow(letter) {
  const row = element("tr");
  const cells = [letter.id, letter.destination, word(letter.kind), letter.code, letter.reason, letter.excerpt, number(letter.attempts), moment(letter.at)];
  row.append(...cells.map((text) => element("td", String(text ?? ""))));
  const button = element("button", "Replay", "quiet");
  button.type = "button";
  button.setAttribute("aria-label", `Replay dead letter ${letter.id}`);
  button.addEventListener("click", () => attempt(`Replay ${letter.id}`, button, async () => {
    const done = await ask("POST", "v1/dead-letters/replay", { ids: [letter.id] });
    say(at("letters-text"), done.replayed ? `Number ${letter.id} was handed in again.` : `Number ${letter.id} is no longer kept.`);
    row.remove();
  }));
  const cell = element("td");
  cell.append(button);
  row.append(cell);
  return row;
}

async function replayAll() {
  const { matched } = await ask("POST", "v1/dead-letters/replay", { ...conditions(), dry_run: true });
  if (!matched) return say(at("letters-text"), "There are none.");
  if (!window.confirm(`Hand in ${number(matched)} dead letters again?`)) return undefined;
  const { replayed } = await ask("POST", "v1/dead-letters/replay", conditions());
  await showLetters(0);
  return say(at("letters-text"), `${number(replayed)} were handed in again.`);
}

// -- one person, audit ------------------------------------------------------------------------------------------

function personCard(name, it) {
  const card = element("article", "", "card");
  const list = element("dl");
  const rows = {
    state: it.state, "last outcome": it.outcome ? word(it.outcome) : "none", reason: it.reason || "–", code: it.code || "–", at: moment(it.at),
    "attendee id": it.attendee_id || "–", "events pending": number(it.pending_events), "dead letters": number(it.dead_letters),
  };
  for (const [row, value] of Object.entries(rows)) list.append(element("dt", row), element("dd", String(value)));
  card.append(element("h3", name), element("p", it.summary ?? ""), list);
  return card;
}

async function lookup() {
  at("lookup").replaceChildren();
  const found = await ask("POST", "v1/profiles/lookup", { email: at("email").value });
  const entries = Object.entries(found.destinations);
  at("lookup").replaceChildren(...entries.map(([name, it]) => personCard(name, it)));
}

async function audit() {
  say(at("audit-text"), "Counting …", "soft");
  at("audit-problems").replaceChildren();
  let report;
  try {
    report = await ask("GET", "v1/audit");
  } catch (error) {
    say(at("audit-text"), "", "");
    throw error;
  }
  say(at("audit-text"), report.ok ? "Every accepted event is accounted for." : "The sums do not add up.", report.ok ? "good" : "bad");
  const lines = Object.entries(report.destinations).map(
    ([name, it]) => `${name}: ${number(it.accepted)} accepted, ${number(it.pending)} pending, residual ${number(it.residual)}`,
  );
  at("audit-problems").replaceChildren(...[...lines, ...(report.problems ?? [])].map((text) => element("li", text)));
}

function onSubmit(form, about, work) {
  at(form).addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(about, event.submitter, work);
  });
}

onSubmit("key-form", "Key", async () => {
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  showStatus(await ask("GET", "v1/status"));
  await attempt("Runs", null, showRuns);
  at("key-form").hidden = true;
  at("notice").hidden = true;
});
onSubmit("letters-form", "Dead letters", () => showLetters(0));
onSubmit("lookup-form", "Look up", lookup);
at("letters-more").addEventListener("click", (event) => attempt("Dead letters", event.currentTarget, () => showLetters(nextLetter)));
at("replay-all").addEventListener("click", (event) => attempt("Replay", event.currentTarget, replayAll));
at("audit").addEventListener("click", (event) => attempt("Audit", event.currentTarget, audit));
watch();
watchRuns();
