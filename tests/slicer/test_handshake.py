"""Client and server say which version of the contract they speak, and whoever is older is told so."""

from __future__ import annotations

import http.client
import json

import pytest
from LandmarkLabelLib import client as client_module
from LandmarkLabelLib.client import Client, Refused


@pytest.mark.parametrize(("spoken", "older"), [(2, "server"), (0, "client")])
def test_who_speaks_another_contract_is_told_what_to_upgrade(server, monkeypatch, spoken, older):
    monkeypatch.setattr(client_module, "CONTRACT", spoken)
    with pytest.raises(Refused) as caught:
        Client(server.url).task()
    wanted = f"speaks version 1 of the contract and this client version {spoken}: upgrade the {older}"
    assert str(caught.value) == f"this server (LandmarkLabel {server.get('/info/')['version']}) {wanted}"


@pytest.mark.parametrize(("said", "older"), [(2, "extension"), (0, "server"), ("x", "extension")])
def test_a_server_that_says_it_speaks_another_contract_is_not_used(server, monkeypatch, said, older):
    answer = {**server.get("/info/"), "contract": said}
    client = Client(server.url)
    monkeypatch.setattr(client, "_call", lambda *_: answer)
    with pytest.raises(Refused, match=rf"speaks version {said} of the contract and this extension 1: upgrade the {older}$"):
        client.info()
    del answer["contract"]  # the first servers did not say
    assert set(client.info()) == {"models", "strategies", "training"}


@pytest.mark.parametrize("sent", ["-1", "1.0", "one", "1" * 9])
def test_a_contract_that_is_no_number_is_refused(server, sent):
    answer = server.http("GET", "/info/", headers={"LandmarkLabel-Contract": sent})
    assert (answer.status_code, answer.json()) == (400, {"detail": "the header landmarklabel-contract must be a number"})


@pytest.mark.parametrize("path", ["/info/", "/landmarks/of-a-later-version"])
def test_the_contract_counts_before_the_address_once_and_as_a_number(server, path):
    newer = server.http("GET", path, headers={"LandmarkLabel-Contract": "02"})
    assert newer.status_code == 400
    assert newer.json()["detail"].endswith("version 1 of the contract and this client version 2: upgrade the server")
    same = server.http("GET", path, headers={"LandmarkLabel-Contract": "01"})
    assert same.status_code == (200 if path == "/info/" else 404)
    connection = http.client.HTTPConnection(server.url.partition("//")[2], timeout=60)
    connection.putrequest("GET", path)
    for said in ("2", "1"):
        connection.putheader("LandmarkLabel-Contract", said)
    connection.endheaders()
    answer = connection.getresponse()
    twice = {"detail": "the header landmarklabel-contract may be there only once"}
    assert (answer.status, json.load(answer)) == (400, twice)
    connection.close()
