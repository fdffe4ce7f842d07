"use strict";

const EVERY_MS = 2000;
const ROWS = 50;
const PRESETS = [
  ["One in five 503", { kind: "status", status: 503, probability: 0.2 }],
  ["429, Retry-After 2 s", { kind: "status", status: 429, retry_after: 2, for_seconds: 10 }],
  ["429 without Retry-After", { kind: "status", status: 429, for_seconds: 10 }],
  ["500 as HTML", { kind: "html_500", probability: 0.2 }],
  ["200 with code 124", { kind: "error_code", code: "124", probability: 0.2 }],
  ["Latency 1 s", { kind: "latency", seconds: 1 }],
  ["Slow drip 5 s", { kind: "drip", seconds: 5, probability: 0.2 }],
  ["Reset before the write", { kind: "reset_before", probability: 0.2 }],
  ["Reset after the write", { kind: "reset_after", probability: 0.2 }],
  ["Token storm", { kind: "token_storm", seconds: 1 }],
  ["Token endpoint down", { kind: "status", status: 503, path: "token" }],
];
const TOTALS = [
  ["attendees", "Attendees"], ["created", "Created"], ["updated", "Updated"], ["regressions", "Regressions"],
  ["requests", "Requests"], ["store_requests", "Store requests"], ["tokens_issued", "Tokens issued"], ["tokens_revoked", "Tokens revoked"],
];

const part = (id) => document.getElementById(id);

// Everything that comes from outside goes through textContent.
function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

function row(cells) {
  const made = element("tr");
  for (const [text, className] of cells) made.append(element("td", text, className));
  return made;
}

async function call(path, method = "GET", content) {
  const response = await fetch("/_sandbox/" + path, { method, body: content === undefined ? undefined : JSON.stringify(content) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || String(response.status));
  return answer;
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();

function showTotals(stats) {
  const entries = TOTALS.map(([name, label]) => [label, stats[name]]);
  for (const [status, count] of Object.entries(stats.by_status)) entries.push([status === "0" ? "No answer" : "Status " + status, count]);
  part("totals").replaceChildren(...entries.map(([label, value]) => {
    const box = element("div");
    box.append(element("dt", label), element("dd", value));
    return box;
  }));
}

function describe(fault) {
  const { kind, hits, over, seconds_left: left, ...rest } = fault;
  const details = Object.entries(rest).map(([name, value]) => name + " " + value).join(", ");
  const time = left === null ? "" : ", " + Math.ceil(left) + " s left";
  return kind + (details ? " (" + details + ")" : "") + ": " + hits + " hits" + (over ? ", over" : time);
}

function showFaults(faults) {
  const lines = faults.length ? faults.map(describe) : ["None."];
  part("faults").replaceChildren(...lines.map((line) => element("li", line)));
}

function showAttendees(attendees) {
  part("attendees").replaceChildren(...attendees.map((one) => row([
    [one.attendee_id], [one.email], [one.org_id], [one.event],
    [Object.entries({ ...one.fields, ...one.extra }).map(([name, value]) => name + ": " + (typeof value === "string" ? value : JSON.stringify(value))).join(" · "), "wide"],
    [one.writes], [clock(one.modified_at)],
  ])));
}

function showRequests(requests) {
  part("requests").replaceChildren(...requests.map((one) => {
    const bad = one.status === 0 || one.status >= 400 || (one.code !== "" && one.code !== "0");
    return row([
      [clock(one.at)], [one.method + " " + one.path], [one.status || "none", bad ? "bad" : ""], [one.code], [one.milliseconds],
      [one.event], [one.records], [one.key], [one.attendee], [one.fault],
    ]);
  }));
}

async function refresh() {
  try {
    const [stats, faults, attendees, requests] = await Promise.all([
      call("stats"), call("faults"), call("attendees?order=newest&limit=" + ROWS), call("requests?limit=" + ROWS),
    ]);
    showTotals(stats);
    showFaults(faults.faults);
    showAttendees(attendees.attendees);
    showRequests(requests.requests);
    say("Live, every " + EVERY_MS / 1000 + " seconds.");
  } catch (error) {
    say("The sandbox does not answer: " + error.message);
  }
}

function say(text) {
  // Only a change is written, so that a screen reader does not hear the same again every two seconds.
  if (part("state").textContent !== text) part("state").textContent = text;
}

async function act(path, method, content) {
  try {
    await call(path, method, content);
  } catch (error) {
    say("Not done: " + error.message);
    return;
  }
  await refresh();
}

async function addFault(fault) {
  const inForce = (await call("faults")).faults.filter((one) => !one.over);
  const kept = inForce.map(({ hits, over, seconds_left, ...rest }) => rest);
  await act("faults", "PUT", [...kept, fault]);
}

async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, EVERY_MS);
}

for (const [label, fault] of PRESETS) {
  const button = element("button", label);
  button.type = "button";
  button.addEventListener("click", () => addFault(fault).catch((error) => say("Not done: " + error.message)));
  part("presets").append(button);
}
part("clear").addEventListener("click", () => act("faults", "DELETE"));
part("revoke").addEventListener("click", () => act("revoke-tokens", "POST"));
part("reset").addEventListener("click", () => act("reset", "POST"));
loop();
