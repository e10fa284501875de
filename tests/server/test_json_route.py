"""What an endpoint returns is the answer, made where the endpoint ran; what comes after it comes after it."""

from __future__ import annotations

import threading

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Response
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from landmarklabel.server import json_route
from landmarklabel.server.json_route import JsonRoute
from landmarklabel.server.threads import in_threads_of_its_own

DONE: list[str] = []


@pytest.fixture
def client(monkeypatch):
    router, rendered_in = APIRouter(route_class=JsonRoute), []

    class Noted(JSONResponse):
        def render(self, content):
            rendered_in.append(threading.current_thread().name)
            return super().render(content)

    monkeypatch.setattr(json_route, "JSONResponse", Noted)

    @router.get("/plain/{n}")
    def plain(n: int, background: BackgroundTasks) -> dict:
        background.add_task(DONE.append, "after")
        return {"n": n, "in": threading.current_thread().name}

    @router.get("/long/{n}")
    @in_threads_of_its_own
    def long(n: int) -> dict:
        return {"n": n, "in": threading.current_thread().name}

    @router.get("/response")
    def response() -> Response:
        return JSONResponse({"detail": "taken"}, 409)

    app = FastAPI()
    app.include_router(router)
    for route in router.routes:
        assert isinstance(route, JsonRoute)
    with TestClient(app) as client:
        yield client, rendered_in


@pytest.mark.parametrize("path", ["/plain/3", "/long/3"])
def test_the_answer_is_written_where_the_endpoint_ran(client, path):
    client, rendered_in = client
    answer = client.get(path)
    assert answer.json()["n"] == 3 and rendered_in == [answer.json()["in"]]
    assert client.get(path.replace("3", "x")).status_code == 422  # its parameters are checked as ever


def test_a_response_is_passed_on_and_tasks_come_after_the_answer(client):
    client, _ = client
    DONE.clear()
    assert client.get("/response").status_code == 409
    client.get("/plain/1")
    assert DONE == ["after"]
