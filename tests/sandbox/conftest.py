"""A running sandbox and a client that is logged in."""

import pytest
import requests

from mautic_sync.sandbox import Sandbox


class Client:
    """Calls to one sandbox as its OAuth client."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.session = requests.Session()
        sent = {"grant_type": "client_credentials", "client_id": "sandbox", "client_secret": "sandbox-secret"}
        token = requests.post(f"{sandbox.url}/oauth/v2/token", data=sent, timeout=10).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method, path, json=None, **query):
        return self.session.request(method, self.sandbox.url + path, json=json, params=query.get("params"), timeout=30)

    def get(self, path, **params):
        return self.call("GET", path, params=params.get("params", params)).json()

    def post(self, path, json=None):
        return self.call("POST", path, json)

    def patch(self, path, json):
        return self.call("PATCH", path, json)

    def new(self, **values):
        return self.post("/api/contacts/new", values).json()["contact"]["id"]

    def contact(self, contact):
        return self.get(f"/api/contacts/{contact}")["contact"]

    def feed(self, table, column="id", expression="gt", value=0):
        where = {"where[0][col]": column, "where[0][expr]": expression, "where[0][val]": value}
        order = {"order[0][col]": "date_added" if column != "id" else "id", "order[0][dir]": "asc"}
        return self.get(f"/api/stats/{table}", params={**where, **order, "limit": 1000})["stats"]

    def act(self, **what):
        response = self.session.post(f"{self.sandbox.url}/_sandbox/act", json=what, timeout=10)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="session")
def log_in():
    """Makes a client of a sandbox."""
    return Client


@pytest.fixture(params=["5.1", "7.0"])
def version(request):
    return request.param


@pytest.fixture
def mautic(version):
    """An empty Mautic with the stages Ghost (1) and Lead (2) and the form Signup."""
    with Sandbox(empty=True, version=version) as sandbox:
        client = Client(sandbox)
        for weight, name in enumerate(("Ghost", "Lead"), start=1):
            client.post("/api/stages/new", {"name": name, "weight": weight * 10})
        field = {"label": "Email", "type": "email", "alias": "email", "mappedField": "email", "leadField": "email"}
        client.post("/api/forms/new", {"name": "Signup", "fields": [field]})
        yield client
        client.session.close()


@pytest.fixture(scope="session")
def world():
    """A Mautic with 400 contacts."""
    with Sandbox(contacts=400, seed=3) as sandbox:
        client = Client(sandbox)
        yield client
        client.session.close()
