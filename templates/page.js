"use strict";
// Updates the results page. The server sends an event when the results change; the page is then fetched
// and only the parts that differ are replaced, so that focus, scroll position and open details stay.
// Without this script the page works, but does not update.
const live = document.getElementById("live");
const replaced = new Map(); // The HTML that was last put into each part, by ID.
const RECONNECT_MS = 5000;
let busy = false, again = false;

function replace(part, html) {
  if ((replaced.get(part.id) ?? part.innerHTML) === html) return;
  replaced.set(part.id, html);
  const open = [...part.querySelectorAll("details[open] > summary")].map((summary) => summary.id);
  const scrolled = [...part.querySelectorAll(".scroll")].map((region) => [region.id, region.scrollLeft]);
  const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.innerHTML = html;
  for (const id of open) document.getElementById(id)?.parentElement.setAttribute("open", "");
  for (const [id, left] of scrolled) { const region = document.getElementById(id); if (region) region.scrollLeft = left; }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  part.classList.remove("fresh");
  void part.offsetWidth; // Restarts the animation of `.fresh`.
  part.classList.add("fresh");
}

function update(fetched) {
  const ids = (page) => [...page.querySelectorAll("[data-live]")].map((part) => part.id).join("\n");
  document.title = fetched.title;
  if (ids(document) !== ids(fetched)) {
    replaced.clear();
    document.querySelector("main").replaceWith(fetched.querySelector("main"));
  }
  for (const part of document.querySelectorAll("[data-live]")) replace(part, fetched.getElementById(part.id).innerHTML);
}

// Shows the message of an error page above the last results.
function showError(fetched) {
  const message = fetched.getElementById("alarms"), alarms = document.getElementById("alarms");
  if (message && alarms) replace(alarms, message.innerHTML);
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (response.status === 401) { location.reload(); return; }
    const fetched = new DOMParser().parseFromString(await response.text(), "text/html");
    if (response.ok) update(fetched); else showError(fetched);
    showConnection();
  } catch { /* The event stream reports that the admin API is unreachable. */ } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

let connected = false;

function showConnection() {
  const stale = document.querySelector("#alarms .stale") !== null;
  live.textContent = !connected ? "not connected; showing the last results" : stale ? "the store is away; showing the last results" : "live";
  live.className = connected && !stale ? "on" : "off";
}

function listen() {
  const source = new EventSource("/admin/results/live");
  source.addEventListener("open", () => { connected = true; showConnection(); });
  source.addEventListener("changed", refresh);
  source.addEventListener("error", () => {
    connected = false;
    showConnection();
    if (source.readyState !== EventSource.CLOSED) return;
    // Browsers do not retry after an error response: the session may have ended, or a proxy in front of
    // the admin API may be unavailable.
    refresh();
    setTimeout(listen, RECONNECT_MS);
  });
}
listen();
