"use strict";
// Keeps the results fresh: the door says when something has changed, and what differs is put in its
// place, so that focus, scrolling and what was opened stay. Without this script the page is plain.
const state = document.getElementById("live");
const was = new Map();
let busy = false, again = false;

function patch(fresh) {
  const ids = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join("\n");
  if (ids(document) !== ids(fresh)) {
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    return;
  }
  for (const now of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(now.id);
    const text = next.innerHTML;
    if ((was.get(now.id) ?? now.innerHTML) === text) continue;
    was.set(now.id, text);
    const open = [...now.querySelectorAll("details")].map((one) => one.open);
    const focused = now.contains(document.activeElement) ? document.activeElement.id : "";
    now.innerHTML = text;
    [...now.querySelectorAll("details")].forEach((one, place) => { one.open = open[place] ?? one.open; });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    now.classList.remove("fresh");
    void now.offsetWidth;
    now.classList.add("fresh");
  }
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status === 401) { location.reload(); return; }
    if (answer.ok) patch(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch { /* The stream says that the door is away. */ } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

const source = new EventSource("/admin/results/live");
source.addEventListener("open", () => { state.textContent = "live"; });
source.addEventListener("error", () => { state.textContent = "not connected: shown as it last was"; });
source.addEventListener("changed", refresh);
