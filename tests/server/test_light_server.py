"""A server without a trained model shows its study, chooses cases and proposes from the labelled ones, all without PyTorch."""

from __future__ import annotations

import psutil
from serving import phantoms, serving, wait_until

IDLE_GIB = 0.45  # the most that a server of a study without a model may take


def test_until_there_is_a_model_pytorch_is_not_in_memory(tmp_path):
    material = phantoms(tmp_path, 6)
    with serving(material) as server:
        process = psutil.Process(server.process.pid)
        wait_until(lambda: server.http("GET", "/landmarks/").text.count("data:image") == 6, 60, "the pictures of all cases")
        assert process.memory_info().rss / 2**30 < IDLE_GIB
        for image_id in sorted(material.truth)[:4]:
            server.client.save_label(image_id, str(material.label_file(image_id, tmp_path)), tag="final")
        assert server.client.next_sample("diverse", {})["id"] == "phantom04"
        answer = server.http("POST", "/infer/scn?image=phantom05&output=json")
        assert answer.status_code == 200 and answer.json()["origin"] == "template", answer.text
        loaded = {mapped.path for mapped in process.memory_maps()}
        assert any("_multiarray_umath" in path for path in loaded) and not [path for path in loaded if "torch" in path]
