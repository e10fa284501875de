"""The loop in the browser: what a person sees, does with the mouse, and what the server holds afterwards."""

from __future__ import annotations

import io

import numpy as np
import requests
from PIL import Image as Picture
from planes import middle_of
from saved_points import points_of
from serving import phantoms, serving, serving_labelled, wait_until

from landmarklabel.store.tokens import Tokens


def test_a_case_from_the_first_press_to_the_next_case(server, material, person):
    ann = person(server.url)
    ann.page.locator(".more summary").click()
    assert ann.page.title() == f"{material.task.name} · LandmarkLabel"
    ann.page.get_by_label("Your name").fill("Ann")
    ann.page.get_by_label("Your name").blur()
    assert ann.page.get_by_label("Choose by").input_value() == "adaptive"
    ann.page.get_by_label("Choose by").select_option("first")
    ann.page.locator(".more summary").click()
    ann.press("Next case")
    case = ann.wait_for_image()
    assert case == sorted(material.truth)[5]
    ann.sees("first by name")
    ann.press("Predict")
    ann.sees("placed by the shape of the labelled cases")
    name, other, gone = material.task.names[:3]
    truth = material.truth[case].positions_mm[0]
    before = ann.mark(material.task.names[6])
    ann.select(name)
    ann.drag(ann.mark(name), ann.on_screen(*truth))
    ann.sees("points moved with it. Ctrl+Z takes that back")
    assert np.hypot(*np.subtract(ann.mark(material.task.names[6]), before)) > 0.2  # the others followed
    assert np.allclose(ann.mark(name), ann.on_screen(*truth), atol=1.0)
    ann.select(other)
    ann.press("Accept")
    ann.select(gone)
    ann.press("Absent")
    ann.sees(f"{gone} is absent")
    assert ann.page.locator(f'.mark[data-name="{gone}"]').count() == 0
    ann.submit()
    assert ann.wait_for_image(sorted(material.truth)[6])
    saved = server.get(f"/landmarks/images/{case}")
    rows = points_of(server, case)
    assert saved["revision"] == 1 and saved["author"] == "Ann"
    assert rows[name][0] == "placed" and np.allclose(rows[name][1], truth, atol=0.5 / zoom(ann))
    assert rows[other][0] == "accepted" and rows[gone] == ("absent", None)


def zoom(who) -> float:
    """Screen pixels for one of the image."""
    a, b = who.on_screen(0, 0), who.on_screen(100, 0)
    return (b[0] - a[0]) / 100


def test_a_bright_pixel_that_is_seen_and_clicked_is_stored_where_it_is(tmp_path, person):
    """Single bright pixels, found in a picture of the screen and clicked; what is stored is compared with where they are."""
    material, rng = phantoms(tmp_path, 12), np.random.default_rng(0)
    spots = {f"phantom{n:02d}": (int(rng.integers(10, 397)), int(rng.integers(10, 291))) for n in range(12)}
    for case, (x, y) in spots.items():
        grey = np.full((301, 407), 30, np.uint8)
        grey[y, x] = 255
        Picture.fromarray(grey).save(material.image(case))
    errors, zooms = [], []
    with serving(material) as server:
        ann = person(server.url)
        for number, (case, spot) in enumerate(spots.items()):
            ann.page.set_viewport_size({"width": 1024 + 7 * number, "height": 700})
            if number == 0:
                ann.page.locator(".more summary").click()
                ann.page.get_by_label("Choose by").select_option("first")
                ann.page.locator(".more summary").click()
                ann.press("Next case")
            ann.wait_for_image(case)
            ann.page.locator(".tools").evaluate("tools => tools.hidden = true")
            for _ in range(2 * (number % 6)):
                ann.page.mouse.move(*ann.on_screen(*spot))
                ann.page.mouse.wheel(0, -150)
            name = material.task.names[number % len(material.task)]
            ann.page.mouse.move(1020, 5)
            box = ann.page.locator(".view").bounding_box()
            shot = np.asarray(Picture.open(io.BytesIO(ann.page.locator(".view").screenshot())).convert("L")).astype(float)
            weight = np.where(shot > 60, shot - 30, 0)  # what is brighter than the rest of the image
            rows, columns = np.indices(shot.shape)
            seen = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum() + 0.5
            ann.places(name, (box["x"] + seen[0], box["y"] + seen[1]))
            zooms.append(zoom(ann))
            ann.submit()
            ann.sees(f"{case} is saved as revision 1")
            errors.append(np.abs(np.subtract(points_of(server, case)[name][1], spot)).max() * zooms[-1])
    assert max(zooms) > 5 * min(zooms)
    assert max(errors) <= 0.5, (errors, zooms)  # pixels of the screen


def test_what_was_done_is_there_after_the_tab_was_closed_and_the_server_killed(tmp_path, person):
    material = phantoms(tmp_path, 2)
    name = material.task.names[0]
    with serving(material) as server:
        ann = person(server.url)
        ann.open_case("phantom00")
        ann.places(name, ann.on_screen(40, 50))
        ann.page.close(run_before_unload=False)
        ann.page = ann.open()
        ann.wait_for_image("phantom00")
        ann.sees("with your changes that were not sent")
        port = int(server.url.rpartition(":")[2])
        server.process.kill()
        server.process.wait()
        ann.submit()
        ann.sees("the server does not answer")
        ann.sees("waits for the server")
        ann.page.close(run_before_unload=False)
    with serving(material, port=port) as server:
        ann.page = ann.open()
        ann.wait_for_image()
        ann.page.locator(".unsent").wait_for(state="hidden", timeout=30_000)
        saved = server.get("/landmarks/images/phantom00")
        assert saved["revision"] == 1 and len(server.get("/landmarks/images/phantom00/history")["revisions"]) == 1
        assert points_of(server, "phantom00")[name][0] == "placed"


def test_a_page_that_stays_open_saves_into_no_other_study_at_its_address(tmp_path, person):
    here, other = phantoms(tmp_path / "here", 2), phantoms(tmp_path / "other", 2)
    name = here.task.names[0]
    with serving(here) as server:
        ann, port = person(server.url), int(server.url.rpartition(":")[2])
        ann.open_case("phantom00")
        ann.places(name, ann.on_screen(40, 50))
    with serving(other, port=port) as server:
        ann.submit()
        ann.sees("Another study is at this address now.")
        assert server.get("/landmarks/images/phantom00")["revision"] == 0
    with serving(here, port=port) as server:
        ann.sees("phantom00 is saved as revision 1")
        assert points_of(server, "phantom00")[name][0] == "placed"


def test_a_double_click_places_one_landmark_and_untouched_cases_are_not_submitted(tmp_path, person):
    material = phantoms(tmp_path, 2)
    with serving(material) as server:
        ann = person(server.url)
        ann.open_case("phantom00")
        ann.submit()
        ann.sees("nothing to submit yet: place, accept or call absent at least one point")
        ann.select(material.task.names[0])
        ann.press("Place")
        ann.page.mouse.dblclick(*ann.on_screen(40, 50))
        ann.page.keyboard.press("Escape")
        ann.submit()
        ann.sees("phantom00 is saved as revision 1")
        unsaid = len(material.task.names) - 1
        ann.sees(f"{unsaid} of its {unsaid + 1} points are not labelled: place, accept or call them absent")
        placed = [n for n, (status, _) in points_of(server, "phantom00").items() if status == "placed"]
        assert placed == [material.task.names[0]]


def test_place_goes_on_through_all_landmarks_also_when_they_are_proposed_meanwhile(tmp_path, person):
    material = phantoms(tmp_path, 4)
    with serving_labelled(material, 3, tmp_path / "labels") as server:  # a template: the first point brings the others along
        ann, names = person(server.url), material.task.names
        ann.open_case("phantom03")
        ann.select(names[0])
        ann.press("Place")
        for number, name in enumerate(names):
            ann.page.mouse.click(*ann.on_screen(20 + 5 * number, 30 + 8 * number))
            ann.page.locator(f'.mark.placed[data-name="{name}"]').wait_for(state="attached", timeout=20_000)
            if not number:
                ann.page.locator(".mark.predicted").first.wait_for(state="attached", timeout=20_000)
        ann.submit()
        ann.sees("phantom03 is saved as revision 1")
        stored = points_of(server, "phantom03")
        for number, name in enumerate(names):
            status, position = stored[name]
            assert status == "placed" and np.allclose(position[:2], (20 + 5 * number, 30 + 8 * number), atol=1)


def test_a_second_tab_takes_over_and_the_first_writes_no_more(server, person):
    ann = person(server.url)
    ann.open_case("phantom06")
    second = ann.open()
    ann.sees("This study is open in another tab of this browser.")
    second.locator(".view img").wait_for()
    ann.press("Work in this tab")
    ann.wait_for_image("phantom06")
    second.get_by_text("This study is open in another tab of this browser.").wait_for()


def test_two_people_meet_in_one_case_and_see_both_versions(server, material, person):
    case, name = sorted(material.truth)[7], material.task.names[0]
    ann, bob = person(server.url), person(server.url)
    for who, at in ((ann, (30, 40)), (bob, (60, 50))):
        who.open_case(case)
        who.places(name, who.on_screen(*at))
    bob.submit()
    bob.sees("is saved as revision 1")
    ann.submit()
    ann.sees("somebody saved revision 1 meanwhile: 1 points differ, drawn as diamonds")
    shown = middle_of(ann.page.locator(".view"), f'.mark.other[data-name="{name}"] > path')
    assert np.allclose(shown, ann.on_screen(60, 50), atol=1.5)
    ann.submit("Submit mine")
    ann.sees("is saved as revision 2")
    assert np.allclose(points_of(server, case)[name][1], (30, 40), atol=1)
    assert [r["revision"] for r in server.get(f"/landmarks/images/{case}/history")["revisions"]] == [1, 2]


def test_what_one_person_did_is_not_saved_under_the_name_of_whoever_logs_in_in_another_tab(tmp_path, person):
    material = phantoms(tmp_path, 1)
    tokens, name = Tokens(material.study), material.task.names[0]
    of_ann, of_bob = tokens.new("ann", "annotator"), tokens.new("bob", "annotator")
    with serving(material) as server:
        ann = person(server.url)
        ann.log_in(of_ann)
        ann.open_case("phantom00")
        ann.places(name, ann.on_screen(40, 50))
        ann.log_in_in_another_tab(of_bob)
        ann.submit()
        ann.sees("Your login has ended. Nothing is lost")
        bearer = {"Authorization": f"Bearer {of_bob}"}
        case = f"{server.url}/landmarks/images/phantom00"
        assert requests.get(case, headers=bearer, timeout=30).json()["revision"] == 0
        ann.log_in(of_ann)
        ann.sees("is saved as revision 1")
        assert requests.get(case, headers=bearer, timeout=30).json()["author"] == "ann"
        ann.page.reload()
        ann.wait_for_image("phantom00")
        ann.page.wait_for_load_state("networkidle")  # its last request for now
        ann.log_in_in_another_tab(of_bob)
        ann.press("Log out")
        ann.sees("somebody else has logged in in this browser")
        assert ann.page.evaluate("fetch('../landmarks/images').then(a => a.status)") == 200  # bob's login goes on


def test_what_one_person_did_in_two_browsers_is_shown_side_by_side(tmp_path, person):
    material = phantoms(tmp_path, 1)
    name = material.task.names[0]
    token = Tokens(material.study).new("ann", "annotator")
    bearer = {"Authorization": f"Bearer {token}"}
    with serving(material) as server:

        def drafted_at(x: float) -> bool:
            draft = server.http("GET", "/landmarks/images/phantom00/draft", headers=bearer).json()["draft"]
            return draft is not None and any(
                r["name"] == name and abs(r["position"][0] - x) < 1 for r in draft["landmarks"] if r["position"]
            )

        here, there = person(server.url), person(server.url)
        for browser, (x, y) in ((here, (40, 50)), (there, (70, 60))):
            browser.log_in(token)
            browser.open_case("phantom00")
            browser.places(name, browser.on_screen(x, y))
            wait_until(lambda x=x: drafted_at(x), 20, "the draft to be on the server")
        here.page.reload()
        here.sees("you worked on this case in another browser too and did not submit it: 1 points differ")
        shown = middle_of(here.page.locator(".view"), f'.mark.other[data-name="{name}"] > path')
        assert np.allclose(shown, here.on_screen(70, 60), atol=1.5)
        here.press("Take all theirs")
        here.sees("took what you had done in the other browser")
        here.submit()
        here.sees("is saved as revision 1")
        saved = server.http("GET", "/landmarks/images/phantom00", headers=bearer).json()["landmarks"]
        assert np.allclose(next(r["position"] for r in saved if r["name"] == name), (70, 60), atol=1)


def test_what_was_done_before_people_had_to_log_in_is_there_for_whoever_says_it_is_theirs(tmp_path, person):
    material = phantoms(tmp_path, 1)
    name = material.task.names[0]
    with serving(material) as server:
        port = int(server.url.rpartition(":")[2])
        ann = person(server.url)
        ann.open_case("phantom00")
        ann.places(name, ann.on_screen(40, 50))
    of_ann = Tokens(material.study).new("ann", "annotator")
    with serving(material, port=port) as server:
        ann.page.reload()
        ann.log_in(of_ann)
        ann.sees("1 from before people had to log in: whoever did it presses Take over")
        assert ann.page.locator(".view img").count() == 0  # nothing of it is opened by itself
        ann.press("Take over")
        ann.sees("phantom00: changed, not submitted")
        ann.page.locator(".unsent").get_by_role("button", name="Open", exact=True).click()
        ann.wait_for_image("phantom00")
        ann.submit()
        ann.sees("is saved as revision 1")
        answer = server.http("GET", "/landmarks/images/phantom00", headers={"Authorization": f"Bearer {of_ann}"}).json()
        placed = {row["name"]: row["position"] for row in answer["landmarks"] if row["status"] == "placed"}
        assert answer["author"] == "ann" and np.allclose(placed[name], (40, 50), atol=1)


def test_with_tokens_people_log_in_once_and_an_ended_login_loses_nothing(tmp_path, person):
    material = phantoms(tmp_path, 1)
    tokens, name = Tokens(material.study), material.task.names[0]
    token = tokens.new("ann", "annotator")
    with serving(material) as server:
        ann = person(server.url)
        ann.page.get_by_label("Token").fill("wrong")
        ann.press("Log in")
        ann.sees("this is no token of this server, or it has expired")
        ann.page.get_by_label("Token").fill(token)
        ann.press("Log in")
        ann.sees("connected as ann")
        assert ann.page.evaluate("document.cookie") == ""  # scripts cannot read it
        ann.open_case("phantom00")
        ann.places(name, ann.on_screen(40, 50))
        token = tokens.new("ann", "annotator")  # the earlier one has ended, and the login with it
        ann.submit()
        ann.sees("Your login has ended. Nothing is lost")
        ann.page.get_by_label("Token").fill(token)
        ann.press("Log in")
        ann.sees("is saved as revision 1")
        ann.press("Log out")
        ann.page.get_by_label("Token").wait_for()
        assert ann.page.evaluate("localStorage.length") == 0
        bearer = {"Authorization": f"Bearer {token}"}
        saved = requests.get(f"{server.url}/landmarks/images/phantom00", headers=bearer, timeout=30).json()
        assert (saved["revision"], saved["author"]) == (1, "ann")


def test_how_a_training_goes_on_is_seen_without_asking_again(server, material, person):
    ann = person(server.url)
    ann.page.locator(".more summary").click()
    ann.sees("nothing was trained yet")
    ann.page.get_by_label("Minutes").fill("")
    ann.press("Train")
    ann.sees("say how many minutes it may take: a number above 0")
    ann.page.get_by_label("Minutes").fill("0.1")
    ann.press("Train")
    ann.sees("scn will be trained")
    ann.sees("scn is being trained,")
    done = "() => /^(published|not published)/.test(document.querySelector('.more h2 + p').textContent)"
    ann.page.wait_for_function(done, timeout=180_000)
