"""The image of the open case: from this computer where the very file lies here, else from the server."""

from __future__ import annotations

from pathlib import Path

from .options import IMAGE_SUFFIXES, local_image
from .session import Session
from .worker import IMAGE


class Fetching:
    """The part of ``LandmarkLogic`` that brings the image; uses its session, client and folder."""

    def _fetch_image(self) -> None:
        """From this computer where it lies here, else from the server, which says of which pixels a submission will speak."""
        session, image_id = self.session, self.session.image_id
        local, compared = local_image(self.options.local_folder, image_id), []

        def job() -> tuple[str, bool, Path]:
            pixels, is_changed = self.client.pixels(image_id)  # before the image: one exchanged in between is refused later
            if local is not None:
                is_same = self.client.has_file(image_id, local)
                compared.append(local)
                if is_same:
                    return pixels, is_changed, local
            return pixels, is_changed, self.client.download(image_id, self.folder / "image", IMAGE_SUFFIXES)

        def done(found: tuple[str, bool, Path]) -> None:
            pixels, is_changed, path = found
            if self.session is session:
                if local is not None and path != local:
                    self._say(self._("{file} is not the image that the server has: the server's is shown").format(file=local))
                if is_changed or (pixels and session.pixels and session.pixels != pixels):
                    text = self._("{case} is another image than the one its points were placed on: look at every point")
                    self.trouble = "; ".join(filter(None, (self.trouble, text.format(case=image_id))))
                session.pixels = pixels
                self.image = path
                self.on_update()
                for other in [p for p in (self.folder / "image").glob("*") if p != path and p.suffix != ".part"]:
                    other.unlink(missing_ok=True)  # of cases before

        def failed() -> None:
            if local is None or compared:  # it is known to be another one
                self._no_image(session)
            else:  # the server cannot be asked now; a submission says nothing of pixels that nobody has compared
                done(("", False, local))

        self.worker.give_up(IMAGE)  # of the case before
        self._run(job, done, self._("fetching the image"), IMAGE, True, failed)

    def _no_image(self, session: Session) -> None:
        if self.session is session:
            self.trouble = self._("no image of {case} is shown: open the case again").format(case=session.image_id)
