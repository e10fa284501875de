"""The image of the open case: from this computer where the very file lies here, else from the server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .client import NotShownHere
from .options import IMAGE_SUFFIXES, local_image
from .session import Session
from .worker import IMAGE


class Fetching:
    """The part of ``LandmarkLogic`` that brings the image; uses its session, client and folder."""

    def _fetch_image(self) -> None:
        """From this computer where it lies here, else from the server, which says of which pixels a submission will speak."""
        session, image_id = self.session, self.session.image_id
        local, compared = local_image(self.options.local_folder, image_id), []

        def job() -> tuple[str, bool, Path | NotShownHere]:
            pixels, is_changed = self.client.pixels(image_id)  # before the image: one exchanged in between is refused later
            if local is not None:
                is_same = self.client.has_file(image_id, local)
                compared.append(local)
                if is_same:
                    return pixels, is_changed, local
            try:
                return pixels, is_changed, self.client.download(image_id, self.folder / "image", IMAGE_SUFFIXES, pixels)
            except NotShownHere as error:
                return pixels, is_changed, error

        def done(found: tuple[str, bool, Path | NotShownHere]) -> None:
            pixels, is_changed, path = found
            if self.session is session:
                is_other_file = local is not None and path != local
                if is_other_file:
                    self._say(self._("{file} is not the image that the server has: the server's is shown").format(file=local))
                self._take_pixels(pixels, is_changed or (is_other_file and not self.is_compared))
                self._take_image(path)

        def failed() -> None:
            if local is None or compared:  # it is known to be another one
                self._no_image(session)
            else:  # the server cannot be asked now
                self.is_compared, self.trouble = False, self._not_compared(local)
                self._take_image(local)

        self.worker.give_up(IMAGE)  # of the case before
        self._run(job, done, self._("fetching the image"), IMAGE, True, failed)

    def _take_pixels(self, pixels: str, is_changed: bool) -> None:
        """What the server's image is now; empty where it could not say."""
        session, self.is_compared = self.session, True
        if self.image is not None and self.trouble == self._not_compared(self.image):
            self.trouble = ""
        if is_changed or (pixels and session.pixels and session.pixels != pixels):
            session.is_other_image = any(p.by_person for p in session.points)
            self.trouble = "; ".join(filter(None, (self.trouble, self.other_image_text())))
        session.pixels = pixels or session.pixels

    def _take_image(self, path: Path | NotShownHere) -> None:
        self.is_shown_by_hand = isinstance(path, NotShownHere)
        self.image = None if isinstance(path, NotShownHere) else path
        self.on_update()
        if self.is_shown_by_hand:
            self._say(str(path))
        if self.predicts_when_shown:
            self.predicts_when_shown = False
            self.predict()
        for other in [p for p in (self.folder / "image").glob("*") if p != path and p.suffix != ".part"]:
            with suppress(OSError):  # one that Windows holds open goes with the next case
                other.unlink()  # of cases before

    def _not_compared(self, file: Path) -> str:
        return self._("{file} is shown; whether the server has the same image is not known yet").format(file=file)

    def other_image_text(self) -> str:
        """What to do where the image was exchanged."""
        text = self._("{case} is another image than the one its points were placed on: look at every point")
        return text.format(case=self.session.image_id)

    def _look_for_image(self) -> None:
        """Compare an image that is shown without having been, once the server is there; say where none is shown."""
        if self.session is None or self.worker.waits(IMAGE):
            return
        if self.online and not self.is_compared:
            self._fetch_image()
        elif self.image is None and not self.is_shown_by_hand:
            self._no_image(self.session)

    def _no_image(self, session: Session) -> None:
        if self.session is session:
            self.trouble = self._("no image of {case} is shown: open the case again").format(case=session.image_id)
