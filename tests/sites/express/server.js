// A small shop by Express: login, CSRF tokens in the session, files named by their content, a service
// worker, and redirects after forms. `node server.js VERSION` prints its port.
const crypto = require("node:crypto")
const path = require("node:path")
const modules = path.join(process.env.TEST_MODULES, "node_modules")
const express = require(path.join(modules, "express"))
const session = require(path.join(modules, "express-session"))

const version = process.argv[2]
const script = `document.documentElement.dataset.script = "${version}"
navigator.serviceWorker.register("/sw.js")
globalThis.whoami = () => fetch("/api/whoami").then(it => it.json()).then(it => it.version)`
const style = `:root { --version: "${version}" }`
const digest = text => crypto.createHash("sha256").update(text).digest("hex").slice(0, 12)
const files = {
  [`/assets/app-${digest(script)}.js`]: ["text/javascript", script],
  [`/assets/app-${digest(style)}.css`]: ["text/css", style],
}
const [scriptPath, stylePath] = Object.keys(files)

const app = express()
app.set("trust proxy", true)
app.use(session({ secret: crypto.randomUUID(), resave: false, saveUninitialized: true, name: "sid" }))
app.use(express.urlencoded({ extended: false }))
for (const [place, [type, text]] of Object.entries(files)) {
  app.get(place, (_, res) => {
    res.set("Cache-Control", "public, max-age=31536000, immutable").type(type).send(text)
  })
}
app.get("/sw.js", (_, res) => {
  res.set("Cache-Control", "no-cache").type("text/javascript")
  res.send(`// ${version}\nself.addEventListener("fetch", event => event.respondWith(fetch(event.request)))`)
})
app.get("/favicon.ico", (_, res) => res.status(204).end())

const page = (req, body) => {
  req.session.csrf ??= crypto.randomUUID()
  return `<!doctype html><html><head><title>${version}</title><link rel="stylesheet" href="${stylePath}">
<script src="${scriptPath}"></script></head><body><h1 id="version">${version}</h1>${body}</body></html>`
}
const form = (req, action, text) =>
  `<form id="form" method="post" action="${action}"><input type="hidden" name="csrf" value="${req.session.csrf ??= crypto.randomUUID()}">
<input name="name" value="ann"><button id="send">${text}</button></form>`
const protect = (req, res, next) =>
  req.body?.csrf === req.session.csrf ? next() : res.status(403).send("CSRF token invalid")

app.get("/", (req, res) => res.send(page(req, form(req, "/login", "Log in"))))
app.post("/login", protect, (req, res) => {
  req.session.user = req.body.name
  res.redirect(303, "/account")
})
app.get("/account", (req, res) => {
  if (!req.session.user) return res.status(403).send("not logged in")
  res.send(page(req, `<p id="user">${req.session.user}</p>${form(req, "/order", "Order")}`))
})
app.get("/api/whoami", (_, res) => res.json({ version }))
app.post("/order", protect, (req, res) => {
  req.session.order = crypto.randomUUID()
  res.redirect(303, `/thanks?order=${req.session.order}`)
})
app.get("/thanks", (req, res) => {
  const isKnown = req.session.order && req.query.order === req.session.order
  res.status(isKnown ? 200 : 404).send(page(req, `<p id="thanks">${isKnown ? "thanks" : "unknown order"}</p>`))
})
const server = app.listen(0, "127.0.0.1", () => console.log(server.address().port))
