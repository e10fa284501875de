"""Logging in with a name and a password that another server knows, in a real browser: as with MONAI Label's Keycloak option."""

from __future__ import annotations

import requests
from serving import phantoms, serving
from stand_in_keycloak import stand_in

from landmarklabel.server.browser_login import BrowserLogins


def test_with_keycloak_people_give_name_and_password_and_save_under_their_name(tmp_path, person):
    material = phantoms(tmp_path, 1)
    people = {"kim": ("horse", "monailabel-annotator"), "uma": ("cow", "monailabel-user")}
    with stand_in(people) as realm:
        more = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.address}
        with serving(material, more=more) as server:
            kim = person(server.url)
            kim.sees("Log in as you do elsewhere in your institution")
            kim.page.get_by_label("Name").fill("kim")
            kim.page.get_by_label("Password").fill("cow")
            kim.press("Log in")
            kim.sees("the identity server does not know this name with this password")
            kim.page.get_by_label("Password").fill("horse")
            kim.press("Log in")
            kim.sees("connected as kim")
            assert kim.page.evaluate("document.cookie") == ""
            kim.page.locator("details.more").evaluate("d => d.open = true")
            kim.page.get_by_label("Open a case").select_option("phantom00")
            kim.wait_for_image("phantom00")
            kim.page.locator("details.more").evaluate("d => d.open = false")
            name = material.task.names[0]
            kim.places(name, kim.on_screen(40, 50))
            kim.submit()
            kim.sees("is saved as revision 1")
            answer = requests.post(f"{server.url}/auth/token", data={"username": "uma", "password": "cow"}, timeout=30)
            bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
            saved = requests.get(f"{server.url}/landmarks/images/phantom00", headers=bearer, timeout=30).json()
            assert (saved["revision"], saved["author"]) == (1, "kim")
            (cookie,) = (c for c in kim.context.cookies() if c["httpOnly"])
            assert cookie["name"] == BrowserLogins(material.study, None).cookie and cookie["expires"] > 0
            kim.press("Log out")
            kim.page.get_by_label("Password").wait_for()
            assert kim.context.request.get(f"{server.url}/info/").status == 401 and not kim.context.cookies()
