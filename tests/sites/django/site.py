"""The same shop by Django: its sessions, its CSRF middleware. `python site.py VERSION` prints its port."""

import hashlib
import secrets
import sys
import tempfile
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, HttpResponseForbidden, JsonResponse
from django.middleware.csrf import get_token
from django.urls import path

VERSION = sys.argv[1]
FOLDER = tempfile.TemporaryDirectory()
settings.configure(
    SECRET_KEY=secrets.token_hex(),
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
    INSTALLED_APPS=["django.contrib.sessions"],
    SESSION_ENGINE="django.contrib.sessions.backends.file",
    SESSION_FILE_PATH=FOLDER.name,
    USE_X_FORWARDED_HOST=True,
)

SCRIPT = f"""document.documentElement.dataset.script = "{VERSION}"
navigator.serviceWorker.register("/sw.js")
globalThis.whoami = () => fetch("/api/whoami").then(it => it.json()).then(it => it.version)"""
STYLE = f':root {{ --version: "{VERSION}" }}'


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


SCRIPT_PATH, STYLE_PATH = f"assets/app-{digest(SCRIPT)}.js", f"assets/app-{digest(STYLE)}.css"


def file(text, kind, cache):
    return lambda request: HttpResponse(text, content_type=kind, headers={"Cache-Control": cache})


def page(body, status=200):
    text = f"""<!doctype html><html><head><title>{VERSION}</title><link rel="stylesheet" href="/{STYLE_PATH}">
<script src="/{SCRIPT_PATH}"></script></head><body><h1 id="version">{VERSION}</h1>{body}</body></html>"""
    return HttpResponse(text, status=status)


def form(request, action, text):
    token = f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">'
    return f'<form id="form" method="post" action="{action}">{token}<input name="name" value="ann"><button id="send">{text}</button></form>'


def see_other(to):
    return HttpResponse(status=303, headers={"Location": to})


def login(request):
    request.session["user"] = request.POST["name"]
    request.session.cycle_key()
    return see_other("/account")


def account(request):
    if "user" not in request.session:
        return HttpResponseForbidden("not logged in")
    return page(f'<p id="user">{request.session["user"]}</p>{form(request, "/order", "Order")}')


def order(request):
    request.session["order"] = secrets.token_hex()
    return see_other(f"/thanks?order={request.session['order']}")


def thanks(request):
    known = request.GET.get("order") == request.session.get("order", "")
    return page(f'<p id="thanks">{"thanks" if known else "unknown order"}</p>', 200 if known else 404)


IMMUTABLE = "public, max-age=31536000, immutable"
WORKER = f'// {VERSION}\nself.addEventListener("fetch", event => event.respondWith(fetch(event.request)))'
urlpatterns = [
    path("", lambda request: page(form(request, "/login", "Log in"))),
    path("login", login),
    path("account", account),
    path("order", order),
    path("thanks", thanks),
    path("api/whoami", lambda request: JsonResponse({"version": VERSION})),
    path(SCRIPT_PATH, file(SCRIPT, "text/javascript", IMMUTABLE)),
    path(STYLE_PATH, file(STYLE, "text/css", IMMUTABLE)),
    path("sw.js", file(WORKER, "text/javascript", "no-cache")),
    path("favicon.ico", lambda request: HttpResponse(status=204)),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


django.setup()
server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
print(server.server_port, flush=True)
server.serve_forever()
