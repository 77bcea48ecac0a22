"""An authorization server: django-oauth-toolkit in gunicorn, on loopback. Run it with .tools/django/bin/python.

Settings, by environment:
  ACCESS_TTL        seconds that an access token lives (3600)
  ROTATE            0: a refresh token stays good and is the only one (1)
  GRACE             seconds in which a rotated refresh token gives the same new pair once more (0)
  REUSE_PROTECTION  1: presenting a rotated refresh token revokes all that came from the same consent (0)

One client, `web` with the secret `web-secret` (`client_secret_basic` or `client_secret_post`), and the token endpoint
`/token`. When it listens, it prints {"issuer": …} in one line. Beside it, what a test needs to know:
  POST /_test/refresh-token  {client, sub, scope} → {refresh_token}, as if this person had just consented
  GET  /_test/log            every token request so far, tokens by their fingerprint
  GET  /_test/alive          ?refresh=…: whether a refresh token of the same consent is still good
  POST /_test/introspect     {token}: whether an access token is valid
"""

import hashlib
import json
import os
import secrets
import uuid
from datetime import timedelta

import django
from django.conf import settings
from django.core.management import call_command
from django.http import JsonResponse
from django.urls import path
from django.utils import timezone
from gunicorn.app.base import BaseApplication

APPS = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
ACCESS_TTL = int(os.environ.get("ACCESS_TTL", "3600"))

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    # In memory, on the one connection of the one thread of the one worker.
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=APPS,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    # The tables are made as they are now, without their history, which is what takes time.
    MIGRATION_MODULES={name.split(".")[-1]: None for name in APPS},
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": ACCESS_TTL,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": int(os.environ.get("GRACE", "0")),
        "REFRESH_TOKEN_REUSE_PROTECTION": os.environ.get("REUSE_PROTECTION") == "1",
        "ROTATE_REFRESH_TOKEN": os.environ.get("ROTATE") != "0",
        "SCOPES": {"read": "", "write": ""},
    },
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_hex(),
    USE_TZ=True,
)
django.setup()

# Models and views can be imported only after the settings are there.
from django.contrib.auth import get_user_model  # noqa: E402
from oauth2_provider.models import AccessToken, Application, RefreshToken  # noqa: E402
from oauth2_provider.views import TokenView  # noqa: E402

log = []
answer_token_request = TokenView.as_view()


def fingerprint(token):
    return hashlib.sha256(token.encode()).hexdigest()[:16] if token else None


def token(request):
    entry = {"n": len(log) + 1}
    log.append(entry)
    response = answer_token_request(request)
    body = json.loads(response.content)
    entry |= {
        "grant_type": request.POST.get("grant_type"),
        "client_id": "web",
        "presented": fingerprint(request.POST.get("refresh_token")),
        "status": response.status_code,
        "error": body.get("error"),
        "issued": fingerprint(body.get("refresh_token")),
    }
    return response


token.csrf_exempt = True


def mint(request):
    wish = json.loads(request.body)
    client = Application.objects.get(client_id=wish["client"])
    user, _ = get_user_model().objects.get_or_create(username=wish["sub"])
    shared = {"user": user, "application": client}
    expires = timezone.now() + timedelta(seconds=ACCESS_TTL)
    access = AccessToken.objects.create(**shared, token=secrets.token_hex(), scope=wish["scope"], expires=expires)
    refresh = RefreshToken.objects.create(
        **shared, token=secrets.token_hex(), access_token=access, token_family=uuid.uuid4()
    )
    return JsonResponse({"refresh_token": refresh.token})


def alive(request):
    family = RefreshToken.objects.get(token=request.GET["refresh"]).token_family
    good = RefreshToken.objects.filter(token_family=family, revoked__isnull=True)
    return JsonResponse({"alive": good.exists()})


def introspect(request):
    found = AccessToken.objects.filter(token=json.loads(request.body)["token"]).first()
    return JsonResponse({"active": found is not None and found.is_valid()})


urlpatterns = [
    path("token", token),
    path("_test/refresh-token", mint),
    path("_test/log", lambda _: JsonResponse(log, safe=False)),
    path("_test/alive", alive),
    path("_test/introspect", introspect),
]


class Server(BaseApplication):
    """One worker that takes one request after the other, so of two uses of a refresh token one is always the later."""

    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("loglevel", "warning")
        # Without a limit the worker also looks twice a second whether its parent is gone, and ends then.
        self.cfg.set("timeout", 0)
        self.cfg.set("post_worker_init", announce)

    def load(self):
        call_command("migrate", run_syncdb=True, verbosity=0)
        Application.objects.create(
            client_id="web",
            client_secret="web-secret",
            # A hash would take most of the time of a token request.
            hash_client_secret=False,
            client_type=Application.CLIENT_CONFIDENTIAL,
            authorization_grant_type=Application.GRANT_AUTHORIZATION_CODE,
            redirect_uris="https://client.example/",
        )
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()


def announce(worker):
    host, port = worker.sockets[0].getsockname()
    print(json.dumps({"issuer": f"http://{host}:{port}"}), flush=True)


if __name__ == "__main__":
    Server().run()
