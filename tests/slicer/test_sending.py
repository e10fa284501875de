"""Large files go to the server piece by piece."""

from __future__ import annotations

import tracemalloc

import numpy as np
import SimpleITK as sitk
from LandmarkLabelLib.client import Client
from LandmarkLabelLib.sending import SentFile


def test_a_large_image_arrives_whole_and_is_never_in_memory_as_a_whole(server, tmp_path):
    path = tmp_path / "Jane Doe.nrrd"
    noise = np.random.default_rng(0).integers(0, 255, (1, 6000, 5000)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=False)
    client = Client(server.url)
    tracemalloc.start()
    assert client.upload("large", path) == "large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < path.stat().st_size
    answer = server.http("GET", "/datastore/image?image=large")
    assert answer.content == path.read_bytes() and "Jane" not in answer.headers["content-disposition"]
    server.http("DELETE", "/datastore/?id=large")


def test_the_body_is_a_form_with_the_file_in_it_whatever_its_name(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        sent = SentFile(file, 'x"\r\nevil: 1.png')
        body = b"".join(iter(lambda: sent.read(3), b""))
        assert len(body) == len(sent)
    boundary = sent.headers["Content-Type"].partition("boundary=")[2].encode()
    head, _, rest = body.partition(b"\r\n\r\n")
    assert rest == b"12345\r\n--" + boundary + b"--\r\n" and b'filename="x%22%0D%0Aevil: 1.png"' in head
