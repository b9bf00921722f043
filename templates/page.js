"use strict";
// Keeps the results fresh: the door says when something has changed, and what differs is put in its
// place, so that focus, scrolling and what was opened stay. Without this script the page is plain.
const live = document.getElementById("live");
const was = new Map();
const AGAIN_MS = 5000;
let busy = false, again = false;

function put(now, text) {
  if ((was.get(now.id) ?? now.innerHTML) === text) return;
  was.set(now.id, text);
  const open = [...now.querySelectorAll("details[open] > summary")].map((one) => one.id);
  const aside = [...now.querySelectorAll(".scroll")].map((one) => [one.id, one.scrollLeft]);
  const focused = now.contains(document.activeElement) ? document.activeElement.id : "";
  now.innerHTML = text;
  for (const id of open) document.getElementById(id)?.parentElement.setAttribute("open", "");
  for (const [id, left] of aside) { const one = document.getElementById(id); if (one) one.scrollLeft = left; }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  now.classList.remove("fresh");
  void now.offsetWidth;
  now.classList.add("fresh");
}

function patch(fresh) {
  const ids = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join("\n");
  document.title = fresh.title;
  if (ids(document) !== ids(fresh)) {
    was.clear();
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
  }
  for (const now of document.querySelectorAll("[data-live]")) put(now, fresh.getElementById(now.id).innerHTML);
}

// What cannot be had now: the numbers stay as they last were, below what is said of it.
function complain(fresh) {
  const said = fresh.getElementById("alarms"), now = document.getElementById("alarms");
  if (said && now) put(now, said.innerHTML);
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.ok) patch(fresh); else complain(fresh);
  } catch { /* The stream says that the door is away. */ } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

function show(connected) {
  live.textContent = connected ? "live" : "not connected: shown as it last was";
  live.className = connected ? "on" : "off";
}

function listen() {
  const source = new EventSource("/admin/results/live");
  source.addEventListener("open", () => show(true));
  source.addEventListener("changed", refresh);
  source.addEventListener("error", () => {
    show(false);
    if (source.readyState !== EventSource.CLOSED) return;
    // Refused, which browsers do not try again: the session may be over, or who is in front of the door may be.
    refresh();
    setTimeout(listen, AGAIN_MS);
  });
}
listen();
